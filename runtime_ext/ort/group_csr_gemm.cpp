#include <algorithm>

#include "operators.h"

namespace scalpel {
namespace {

class Gemm final : public Kernel {
 public:
  Gemm(const Node& node, Isa isa) : Kernel(node.api()), layer_(node) {
    if (layer_.weight_shape().size() != 2) {
      layer_.fail("weight_shape " + to_string(layer_.weight_shape()) + " must be [M, K]");
    }
    std::string error;
    plan_ = make_gemm_plan(layer_.matrix(), isa, &error);
    if (plan_ == nullptr) layer_.fail(error);
  }

  void compute(OrtKernelContext& context) const override {
    const int64_t M = layer_.matrix().M, K = layer_.matrix().K;
    Layer::Call call(layer_, context);
    Shape shape = call.x_shape();
    if (shape.rank == 0 || shape.dims[shape.rank - 1] != K) {
      layer_.fail("X " + to_string(shape.dims, shape.rank) + " must have the shape [..., " + std::to_string(K) + "]");
    }
    shape.dims[shape.rank - 1] = M;
    float* Y = call.output(shape);
    const Epilogue epilogue = call.epilogue(shape);
    if (std::find(shape.dims, shape.dims + shape.rank, 0) != shape.dims + shape.rank) return;
    int64_t N = 1;  // does not overflow: the output is in memory
    for (size_t i = 0; i + 1 < shape.rank; ++i) N *= shape.dims[i];
    void* workspace = call.workspace(plan_->workspace_bytes(N));
    plan_->run(call.x(), N, Y, epilogue, workspace, call.threads());
    call.finish();
  }

 private:
  Layer layer_;
  std::unique_ptr<GemmPlan> plan_;
};

}  // namespace

std::unique_ptr<Kernel> make_gemm(const Node& node, Isa isa) { return std::make_unique<Gemm>(node, isa); }

}  // namespace scalpel
