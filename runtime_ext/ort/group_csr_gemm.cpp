#include "group_csr_gemm.h"

#include "product_shape.h"

namespace scalpel {

GroupCsrGemm::GroupCsrGemm(const Node& node, StoredValues stored) : Kernel(node.api()), layer_(node, stored) {
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

}  // namespace scalpel
