#include "group_csr_gemm.h"

#include <algorithm>

#include "error.h"

namespace scalpel {
GroupCsrGemm::GroupCsrGemm(const Node& node) : Kernel(node.api()), layer_(node) {
  if (layer_.weight_shape().size() != 2) {
    layer_.fail("weight_shape " + to_string(layer_.weight_shape()) + " must be [M, K]");
  }
}

void GroupCsrGemm::compute(OrtKernelContext& context) const {
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
  run(call, N, Y, epilogue);
}

}  // namespace scalpel
