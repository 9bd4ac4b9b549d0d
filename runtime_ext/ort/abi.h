// The part of ONNX Runtime's C ABI that the operators use, declared by hand: the onnxruntime wheels carry no
// headers. The function table only ever grows at its end, so what is declared for version 17 (ONNX Runtime
// 1.17) holds in every later one. Slots from 276 on are not in version 17: in ONNX Runtime 1.17 they lie
// beyond the table.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

inline constexpr uint32_t kOrtApiVersion = 17;

struct OrtAllocator;
struct OrtCustomOpDomain;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtMemoryInfo;
struct OrtOpAttr;
struct OrtSessionOptions;
struct OrtShapeInferContext;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;
struct OrtCustomOp;

enum OrtErrorCode : int { kOrtFail = 1, kOrtInvalidArgument = 2 };
enum OrtAttributeType : int { kOrtAttributeInts = 2 };
enum OrtAllocatorType : int { kOrtArenaAllocator = 1 };
enum OrtMemoryType : int { kOrtMemoryCpuInput = -2, kOrtMemoryDefault = 0 };
enum OrtCharacteristic : int { kOrtRequired = 0 };
enum OrtElementType : int {
  kOrtUndefined = 0,  // as an operator's input type: any
  kOrtFloat = 1,
  kOrtUint8 = 2,
  kOrtInt8 = 3,
  kOrtUint16 = 4,
  kOrtInt16 = 5,
  kOrtInt32 = 6,
  kOrtInt64 = 7,
  kOrtFloat16 = 10,
  kOrtBfloat16 = 16,
};

// A null status is success; every other one is released by whoever receives it.
struct OrtApi {
  OrtStatus* (*CreateStatus)(OrtErrorCode code, const char* message);
  void* unused_1;
  const char* (*GetErrorMessage)(const OrtStatus* status);
  void* unused_3[23];
  OrtStatus* (*CreateCustomOpDomain)(const char* name, OrtCustomOpDomain** out);
  OrtStatus* (*CustomOpDomain_Add)(OrtCustomOpDomain* domain, const OrtCustomOp* op);
  OrtStatus* (*AddCustomOpDomain)(OrtSessionOptions* options, OrtCustomOpDomain* domain);
  void* unused_29[22];
  OrtStatus* (*GetTensorMutableData)(OrtValue* value, void** out);
  void* unused_52[5];
  OrtStatus* (*CreateTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo** out);
  OrtStatus* (*SetTensorElementType)(OrtTensorTypeAndShapeInfo* info, OrtElementType type);
  OrtStatus* (*SetDimensions)(OrtTensorTypeAndShapeInfo* info, const int64_t* dims, size_t rank);
  OrtStatus* (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo* info, OrtElementType* out);
  OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);
  OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo* info, int64_t* out, size_t rank);
  OrtStatus* (*GetSymbolicDimensions)(const OrtTensorTypeAndShapeInfo* info, const char** out, size_t rank);
  void* unused_64;
  OrtStatus* (*GetTensorTypeAndShape)(const OrtValue* value, OrtTensorTypeAndShapeInfo** out);
  void* unused_66[3];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType allocator, OrtMemoryType memory, OrtMemoryInfo** out);
  void* unused_70[5];
  OrtStatus* (*AllocatorAlloc)(OrtAllocator* allocator, size_t bytes, void** out);
  OrtStatus* (*AllocatorFree)(OrtAllocator* allocator, void* memory);
  void* unused_77[8];
  OrtStatus* (*KernelInfoGetAttribute_float)(const OrtKernelInfo* info, const char* name, float* out);
  OrtStatus* (*KernelInfoGetAttribute_int64)(const OrtKernelInfo* info, const char* name, int64_t* out);
  void* unused_87[3];
  OrtStatus* (*KernelContext_GetInput)(const OrtKernelContext* context, size_t index, const OrtValue** out);
  OrtStatus* (*KernelContext_GetOutput)(OrtKernelContext* context, size_t index, const int64_t* dims, size_t rank,
                                        OrtValue** out);
  void* unused_92;
  void (*ReleaseStatus)(OrtStatus* status);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo* info);
  void* unused_95[4];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo* info);
  void* unused_100[32];
  void (*ReleaseAllocator)(OrtAllocator* allocator);
  void* unused_133[30];
  // Called with out = null, gives the number of elements in *size.
  OrtStatus* (*KernelInfoGetAttributeArray_int64)(const OrtKernelInfo* info, const char* name, int64_t* out,
                                                  size_t* size);
  void* unused_164[29];
  // The cudaStream_t of the CUDA provider.
  OrtStatus* (*KernelContext_GetGPUComputeStream)(const OrtKernelContext* context, void** out);
  void* unused_194[50];
  // Called with out = null, gives the number of bytes, with the closing zero, in *size.
  OrtStatus* (*KernelInfo_GetNodeName)(const OrtKernelInfo* info, char* out, size_t* size);
  void* unused_245[4];
  // The value belongs to ONNX Runtime.
  OrtStatus* (*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo* info, size_t index, int* is_constant,
                                                  const OrtValue** out);
  void* unused_250[3];
  OrtStatus* (*KernelContext_GetAllocator)(const OrtKernelContext* context, const OrtMemoryInfo* info,
                                           OrtAllocator** out);
  void* unused_254[14];
  // The information belongs to ONNX Runtime; an input of unknown rank is given as one of rank 0.
  OrtStatus* (*ShapeInferContext_GetInputTypeShape)(const OrtShapeInferContext* context, size_t index,
                                                    OrtTensorTypeAndShapeInfo** out);
  OrtStatus* (*ShapeInferContext_GetAttribute)(const OrtShapeInferContext* context, const char* name,
                                               const OrtOpAttr** out);
  OrtStatus* (*ShapeInferContext_SetOutputTypeShape)(const OrtShapeInferContext* context, size_t index,
                                                     const OrtTensorTypeAndShapeInfo* info);
  OrtStatus* (*SetSymbolicDimensions)(OrtTensorTypeAndShapeInfo* info, const char** names, size_t rank);
  // Gives in *needed the bytes of the attribute's data, also where `bytes` are too few and it fails.
  OrtStatus* (*ReadOpAttr)(const OrtOpAttr* attribute, OrtAttributeType type, void* data, size_t bytes,
                           size_t* needed);
  void* unused_273;
  // Runs fn(user, i) for i in [0, total) on the session's intra-op threads, dealt out in num_batch portions.
  OrtStatus* (*KernelContext_ParallelFor)(const OrtKernelContext* context, void (*fn)(void* user, size_t i),
                                          size_t total, size_t num_batch, void* user);
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);  // null if this ONNX Runtime is older than that
  const char* (*GetVersionString)();
};

struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info);
  const char* (*GetName)(const OrtCustomOp* op);
  const char* (*GetExecutionProviderType)(const OrtCustomOp* op);  // null: CPU
  OrtElementType (*GetInputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp* op);
  OrtElementType (*GetOutputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp* op);
  void (*KernelCompute)(void* kernel, OrtKernelContext* context);
  void (*KernelDestroy)(void* kernel);
  OrtCharacteristic (*GetInputCharacteristic)(const OrtCustomOp* op, size_t index);
  OrtCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp* op, size_t index);
  OrtMemoryType (*GetInputMemoryType)(const OrtCustomOp* op, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp* op);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp* op);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp* op);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp* op);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext* context);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp* op, OrtShapeInferContext* context);
  int (*GetStartVersion)(const OrtCustomOp* op);
  int (*GetEndVersion)(const OrtCustomOp* op);
};

}  // extern "C"

#define SCALPEL_SLOT(name, index) \
  static_assert(offsetof(OrtApi, name) == (index) * sizeof(void*), #name " is not in slot " #index)
SCALPEL_SLOT(GetErrorMessage, 2);
SCALPEL_SLOT(CreateCustomOpDomain, 26);
SCALPEL_SLOT(AddCustomOpDomain, 28);
SCALPEL_SLOT(GetTensorMutableData, 51);
SCALPEL_SLOT(CreateTensorTypeAndShapeInfo, 57);
SCALPEL_SLOT(GetSymbolicDimensions, 63);
SCALPEL_SLOT(GetTensorTypeAndShape, 65);
SCALPEL_SLOT(CreateCpuMemoryInfo, 69);
SCALPEL_SLOT(AllocatorAlloc, 75);
SCALPEL_SLOT(KernelInfoGetAttribute_float, 85);
SCALPEL_SLOT(KernelContext_GetInput, 90);
SCALPEL_SLOT(ReleaseStatus, 93);
SCALPEL_SLOT(ReleaseTensorTypeAndShapeInfo, 99);
SCALPEL_SLOT(ReleaseAllocator, 132);
SCALPEL_SLOT(KernelInfoGetAttributeArray_int64, 163);
SCALPEL_SLOT(KernelContext_GetGPUComputeStream, 193);
SCALPEL_SLOT(KernelInfo_GetNodeName, 244);
SCALPEL_SLOT(KernelInfoGetConstantInput_tensor, 249);
SCALPEL_SLOT(KernelContext_GetAllocator, 253);
SCALPEL_SLOT(ShapeInferContext_GetInputTypeShape, 268);
SCALPEL_SLOT(ReadOpAttr, 272);
SCALPEL_SLOT(KernelContext_ParallelFor, 274);
#undef SCALPEL_SLOT
static_assert(offsetof(OrtCustomOp, CreateKernelV2) == 17 * sizeof(void*), "OrtCustomOp is out of step");
static_assert(offsetof(OrtCustomOp, GetEndVersion) == 21 * sizeof(void*), "OrtCustomOp is out of step");
