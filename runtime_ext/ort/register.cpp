// The library's one exported function: makes the operators of domain ai.scalpel known to a session.

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "error.h"
#include "operators.h"
#include "shape_inference.h"

namespace scalpel {
namespace {

constexpr const char* kDomain = "ai.scalpel";

// The constant inputs may have any type here, because the kernel refuses a wrong one in better words.
constexpr OrtElementType kAny = kOrtUndefined;
constexpr OrtElementType kGroupCsrInputs[] = {kOrtFloat, kAny, kAny, kAny, kAny, kOrtFloat};
constexpr OrtElementType kLrnInputs[] = {kOrtFloat, kAny, kAny, kAny};
constexpr OrtElementType kQInputs[] = {kOrtInt16, kAny, kAny, kAny, kAny, kAny, kAny};

struct Operator : OrtCustomOp {
  using Make = std::unique_ptr<Kernel> (*)(const Node&, Isa);
  using InferShape = void (*)(const OrtApi&, OrtShapeInferContext&);

  template <size_t kInputs>
  Operator(const OrtApi& api_, const char* name_, const OrtElementType (&inputs_)[kInputs], Make make_,
           InferShape infer_shape_);

  const OrtApi& api;
  const char* name;
  const OrtElementType* inputs;  // [n_inputs]; the output's type is that of the first
  size_t n_inputs;
  Make make;
  InferShape infer_shape;
};

const Operator& self(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  return guarded(*api, [&] {
    const Node node(*api, *info, self(op).name);
    Isa isa{};
    std::string error;
    if (!choose_isa(&isa, &error)) node.fail(error);
    *kernel = self(op).make(node, isa).release();
  });
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const Kernel& self = *static_cast<const Kernel*>(kernel);
  return guarded(self.api(), [&] { self.compute(*context); });
}

template <size_t kInputs>
Operator::Operator(const OrtApi& api_, const char* name_, const OrtElementType (&inputs_)[kInputs], Make make_,
                   InferShape infer_shape_)
    : OrtCustomOp{}, api(api_), name(name_), inputs(inputs_), n_inputs(kInputs), make(make_),
      infer_shape(infer_shape_) {
  version = kOrtApiVersion;
  GetName = [](const OrtCustomOp* op) { return self(op).name; };
  GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  GetInputType = [](const OrtCustomOp* op, size_t index) { return self(op).inputs[index]; };
  GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).n_inputs; };
  GetOutputType = [](const OrtCustomOp* op, size_t) { return self(op).inputs[0]; };
  GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return kOrtRequired; };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return kOrtRequired; };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return kOrtMemoryDefault; };
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
  explicit Domain(const OrtApi& api)
      : gemm(api, "GroupCsrGemm", kGroupCsrInputs, make_gemm, infer_gemm_shape),
        conv(api, "GroupCsrConv", kGroupCsrInputs, make_conv, infer_conv_shape),
        lrn(api, "WindowedLrn", kLrnInputs, make_lrn, infer_lrn_shape),
        q_gemm(api, "QGroupCsrGemm", kQInputs, make_q_gemm, infer_q_gemm_shape),
        q_conv(api, "QGroupCsrConv", kQInputs, make_q_conv, infer_q_conv_shape) {
    check(api, api.CreateCustomOpDomain(kDomain, &handle));
    check(api, api.CustomOpDomain_Add(handle, &gemm));
    check(api, api.CustomOpDomain_Add(handle, &conv));
    check(api, api.CustomOpDomain_Add(handle, &lrn));
    check(api, api.CustomOpDomain_Add(handle, &q_gemm));
    check(api, api.CustomOpDomain_Add(handle, &q_conv));
  }

  Operator gemm, conv, lrn, q_gemm, q_conv;
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
