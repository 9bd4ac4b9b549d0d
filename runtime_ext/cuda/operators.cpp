#include "cuda/operators.h"

#include <optional>
#include <stdexcept>

#include "cuda/plan.h"
#include "ort/error.h"
#include "ort/group_csr_conv.h"
#include "ort/group_csr_gemm.h"

namespace scalpel {
namespace {

// Errors of the plans get the name of the node.
template <typename Body>
void labelled(const Layer& layer, const Body& body) {
  std::string problem;
  try {
    body();
    return;
  } catch (const std::runtime_error& error) {
    problem = error.what();
  } catch (const std::length_error& error) {
    problem = error.what();
  }
  layer.fail(problem);
}

CudaEpilogue on_device(const Epilogue& epilogue) { return {epilogue.bias, epilogue.min, epilogue.max, epilogue.gate}; }

cudaStream_t stream(const OrtApi& api, const OrtKernelContext& context) {
  void* stream = nullptr;
  check(api, api.KernelContext_GetGPUComputeStream(&context, &stream));
  return static_cast<cudaStream_t>(stream);
}

class GemmOnCuda final : public GroupCsrGemm {
 public:
  explicit GemmOnCuda(const Node& node) : GroupCsrGemm(node, StoredValues::kFloat) {
    labelled(layer(), [&] { plan_.emplace(layer().matrix(), on_device(layer().epilogue())); });
  }

 private:
  void run(Layer::Call& call, int64_t N, float* Y, const Epilogue& epilogue) const override {
    labelled(layer(), [&] { plan_->run(call.x(), N, epilogue.residual, Y, stream(api(), call.context())); });
  }

  std::optional<CudaGemm> plan_;
};

class ConvOnCuda final : public GroupCsrConv {
 public:
  explicit ConvOnCuda(const Node& node) : GroupCsrConv(node) {
    labelled(layer(), [&] { plan_.emplace(layer().matrix(), geometry(), on_device(layer().epilogue())); });
  }

 private:
  void run(Layer::Call& call, int64_t batch, int64_t in_h, int64_t in_w, float* Y,
           const Epilogue& epilogue) const override {
    labelled(layer(), [&] {
      plan_->run(call.x(), batch, in_h, in_w, epilogue.residual, Y, stream(api(), call.context()));
    });
  }

  std::optional<CudaConv> plan_;
};

}  // namespace

std::unique_ptr<Kernel> make_cuda_gemm(const Node& node) { return std::make_unique<GemmOnCuda>(node); }

std::unique_ptr<Kernel> make_cuda_conv(const Node& node) { return std::make_unique<ConvOnCuda>(node); }

void copy_to_host(void* to, const void* from, size_t bytes) {
  try {
    check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "a constant input cannot be read");
  } catch (const std::runtime_error& error) {
    throw Error(error.what());
  }
}

}  // namespace scalpel
