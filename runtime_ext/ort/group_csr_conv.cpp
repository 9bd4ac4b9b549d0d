#include "group_csr_conv.h"

namespace scalpel {

GroupCsrConv::GroupCsrConv(const Node& node)
    : Kernel(node.api()), layer_(node, StoredValues::kFloat), attributes_(node, layer_.weight_shape()) {}

void GroupCsrConv::compute(OrtKernelContext& context) const {
  Layer::Call call(layer_, context);
  const ConvAttributes::Images images = attributes_.images(call.x_shape());
  float* Y = call.output(images.output);
  const Epilogue epilogue = call.epilogue(images.output);
  if (!images.output.is_empty()) run(call, images.batch, images.in_h, images.in_w, Y, epilogue);
}

}  // namespace scalpel
