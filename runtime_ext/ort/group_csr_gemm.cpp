#include "group_csr_gemm.h"

#include "error.h"

namespace scalpel {

GroupCsrGemm::GroupCsrGemm(const Node& node) : Kernel(node.api()), layer_(node) {
  if (layer_.weight_shape().size() != 2) {
    layer_.fail("weight_shape " + to_string(layer_.weight_shape()) + " must be [M, K]");
  }
}

void GroupCsrGemm::compute(OrtKernelContext& context) const {
  Layer::Call call(layer_, context);
  int64_t N = 0;
  const Shape shape = product_shape(call.x_shape(), layer_.label(), layer_.matrix(), &N);
  float* Y = call.output(shape);
  const Epilogue epilogue = call.epilogue(shape);
  if (!shape.is_empty()) run(call, N, Y, epilogue);
}

Shape product_shape(const Shape& x, const std::string& label, const GroupCsrView& matrix, int64_t* rows) {
  if (x.rank == 0 || x.dims[x.rank - 1] != matrix.K) {
    throw Error(label + ": X " + to_string(x.dims, x.rank) + " must have the shape [..., " + std::to_string(matrix.K) +
                "]");
  }
  Shape shape = x;
  shape.dims[shape.rank - 1] = matrix.M;
  *rows = 1;  // does not overflow: the input is in memory
  for (size_t i = 0; i + 1 < x.rank; ++i) *rows *= x.dims[i];
  return shape;
}

}  // namespace scalpel
