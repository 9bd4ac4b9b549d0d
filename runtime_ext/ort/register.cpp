// The library's one exported function: makes the operators of domain ai.scalpel known to a session.

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "error.h"
#include "operators.h"
#ifdef SCALPEL_CUDA
#include "cuda/operators.h"
#endif
#include "shape_inference.h"

namespace scalpel {
namespace {

constexpr const char* kDomain = "ai.scalpel";

// The constant inputs may have any type here, because the kernel refuses a wrong one in better words.
constexpr OrtElementType kAny = kOrtUndefined;
constexpr OrtElementType kGroupCsrInputs[] = {kOrtFloat, kAny, kAny, kAny, kAny, kOrtFloat};
constexpr OrtElementType kScaledInputs[] = {kOrtFloat, kAny, kAny, kAny, kAny, kOrtFloat, kAny};
constexpr OrtElementType kLrnInputs[] = {kOrtFloat, kAny, kAny, kAny};
constexpr OrtElementType kQInputs[] = {kOrtInt16, kAny, kAny, kAny, kAny, kAny, kAny};

// Of QLinearGroupCsrConv and -Gemm, of those that add, and of GroupCsrConvIntegerToFloat and -Gemm-, for each type T of X.
template <OrtElementType T>
constexpr OrtElementType kQLinearInputs[] = {T, kAny, kAny, kAny, kAny, kAny, kAny, kAny, kAny, kAny};
template <OrtElementType T>
constexpr OrtElementType kQLinearAddInputs[] = {T,    kAny, kAny, kAny, kAny, kAny, kAny, kAny,
                                                kAny, kAny, T,    kAny, kAny, kAny, kAny};
template <OrtElementType T>
constexpr OrtElementType kIntegerToFloatInputs[] = {T, kOrtFloat, T, kAny, kAny, kAny, kAny, kAny, kOrtFloat};

// What runs an operator's kernels.
struct Provider {
  const char* name;  // null: CPU
  CopyToHost copy_to_host;
  OrtMemoryType constants;  // where ONNX Runtime is to keep the constant inputs of the kernels
};

constexpr Provider kCpu = {
    nullptr, [](void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }, kOrtMemoryDefault};

struct Operator : OrtCustomOp {
  using Make = std::unique_ptr<Kernel> (*)(const Node&);
  using InferShape = void (*)(const OrtApi&, OrtShapeInferContext&);

  template <size_t kInputs>
  Operator(const OrtApi& api_, const Provider& provider_, const char* name_, const OrtElementType (&inputs_)[kInputs],
           Make make_, InferShape infer_shape_, OrtElementType output_ = kAny);

  const OrtApi& api;
  const Provider& provider;
  const char* name;
  const OrtElementType* inputs;  // [n_inputs]
  OrtElementType output;
  size_t n_inputs;
  Make make;
  InferShape infer_shape;
};

const Operator& self(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  return guarded(*api, [&] {
    const Node node(*api, *info, self(op).name, self(op).provider.copy_to_host);
    *kernel = self(op).make(node).release();
  });
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const Kernel& self = *static_cast<const Kernel*>(kernel);
  return guarded(self.api(), [&] { self.compute(*context); });
}

template <std::unique_ptr<Kernel> (*kMake)(const Node&, Isa)>
std::unique_ptr<Kernel> on_cpu(const Node& node) {
  Isa isa{};
  std::string error;
  if (!choose_isa(&isa, &error)) node.fail(error);
  return kMake(node, isa);
}

template <std::unique_ptr<Kernel> (*kMake)(const Node&, Isa, bool), bool kIsSigned>
std::unique_ptr<Kernel> of_type(const Node& node, Isa isa) {
  return kMake(node, isa, kIsSigned);
}

template <size_t kInputs>
Operator::Operator(const OrtApi& api_, const Provider& provider_, const char* name_,
                   const OrtElementType (&inputs_)[kInputs], Make make_, InferShape infer_shape_,
                   OrtElementType output_)
    : OrtCustomOp{}, api(api_), provider(provider_), name(name_), inputs(inputs_),
      output(output_ == kAny ? inputs_[0] : output_), n_inputs(kInputs), make(make_), infer_shape(infer_shape_) {
  version = kOrtApiVersion;
  GetName = [](const OrtCustomOp* op) { return self(op).name; };
  GetExecutionProviderType = [](const OrtCustomOp* op) { return self(op).provider.name; };
  GetInputType = [](const OrtCustomOp* op, size_t index) { return self(op).inputs[index]; };
  GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).n_inputs; };
  GetOutputType = [](const OrtCustomOp* op, size_t) { return self(op).output; };
  GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return kOrtRequired; };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return kOrtRequired; };
  GetInputMemoryType = [](const OrtCustomOp* op, size_t index) {
    // By type: every operator's other inputs are tensors that the model computes, or can be.
    return self(op).inputs[index] == kOrtFloat ? kOrtMemoryDefault : self(op).provider.constants;
  };
  CreateKernelV2 = create_kernel;
  KernelComputeV2 = compute;
  KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) {
    return guarded(self(op).api, [&] { self(op).infer_shape(self(op).api, *context); });
  };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };
}

struct Domain {
  explicit Domain(const OrtApi& api) {
    check(api, api.CreateCustomOpDomain(kDomain, &handle));
    const auto add = [&](auto&&... arguments) {
      operators.push_back(std::make_unique<Operator>(api, arguments...));
      check(api, api.CustomOpDomain_Add(handle, operators.back().get()));
    };
    add(kCpu, "GroupCsrGemm", kGroupCsrInputs, on_cpu<make_gemm>, infer_gemm_shape);
    add(kCpu, "GroupCsrConv", kGroupCsrInputs, on_cpu<make_conv>, infer_conv_shape);
    add(kCpu, "GroupCsrScaledGemm", kScaledInputs, on_cpu<make_scaled_gemm>, infer_gemm_shape);
    add(kCpu, "WindowedLrn", kLrnInputs, on_cpu<make_lrn>, infer_lrn_shape);
    add(kCpu, "QGroupCsrGemm", kQInputs, on_cpu<make_q_gemm>, infer_q_gemm_shape);
    add(kCpu, "QGroupCsrConv", kQInputs, on_cpu<make_q_conv>, infer_q_conv_shape);
    add_qlinear<kOrtUint8>(add);
    add_qlinear<kOrtInt8>(add);
#ifdef SCALPEL_CUDA
    static constexpr Provider kCuda = {kCudaProvider, copy_to_host, kOrtMemoryCpuInput};
    add(kCuda, "GroupCsrGemm", kGroupCsrInputs, make_cuda_gemm, infer_gemm_shape);
    add(kCuda, "GroupCsrConv", kGroupCsrInputs, make_cuda_conv, infer_conv_shape);
#endif
  }

  // ONNX Runtime takes the operator whose types are those of a node.
  template <OrtElementType T, typename Add>
  static void add_qlinear(const Add& add) {
    constexpr bool kIsSigned = T == kOrtInt8;
    add(kCpu, "QLinearGroupCsrGemm", kQLinearInputs<T>, on_cpu<of_type<make_qlinear_gemm, kIsSigned>>, infer_qlinear_gemm_shape);
    add(kCpu, "QLinearGroupCsrGemmAdd", kQLinearAddInputs<T>, on_cpu<of_type<make_qlinear_gemm_add, kIsSigned>>,
        infer_qlinear_gemm_shape);
    add(kCpu, "QLinearGroupCsrConv", kQLinearInputs<T>, on_cpu<of_type<make_qlinear_conv, kIsSigned>>, infer_qlinear_conv_shape);
    add(kCpu, "QLinearGroupCsrConvAdd", kQLinearAddInputs<T>, on_cpu<of_type<make_qlinear_conv_add, kIsSigned>>,
        infer_qlinear_conv_shape);
    add(kCpu, "GroupCsrGemmIntegerToFloat", kIntegerToFloatInputs<T>,
        on_cpu<of_type<make_gemm_integer_to_float, kIsSigned>>, infer_gemm_shape, kOrtFloat);
    add(kCpu, "GroupCsrConvIntegerToFloat", kIntegerToFloatInputs<T>,
        on_cpu<of_type<make_conv_integer_to_float, kIsSigned>>, infer_conv_shape, kOrtFloat);
  }

  std::vector<std::unique_ptr<Operator>> operators;
  OrtCustomOpDomain* handle = nullptr;
};

// Made once for each ONNX Runtime in the process and never destroyed: it must outlive every session.
OrtCustomOpDomain* domain_of(const OrtApi& api) {
  static std::mutex mutex;
  static auto& domains = *new std::map<const OrtApi*, std::unique_ptr<Domain>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Domain>& domain = domains[&api];
  if (domain == nullptr) domain = std::make_unique<Domain>(api);
  return domain->handle;
}

}  // namespace
}  // namespace scalpel

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(kOrtApiVersion);
  if (api == nullptr) {
    // Creating a status has been in the same place since the first version.
    const OrtApi& oldest = *base->GetApi(1);
    return scalpel::guarded(oldest, [&] {
      throw scalpel::Error(std::string("the ai.scalpel operators need ONNX Runtime 1.17 or newer, this is ") +
                           base->GetVersionString() + ": upgrade onnxruntime, or run the model without this library");
    });
  }
  return scalpel::guarded(*api, [&] { scalpel::check(*api, api->AddCustomOpDomain(options, scalpel::domain_of(*api))); });
}
