#include "group_csr_conv.h"

#include <algorithm>

#include "kernels/conv_geometry.h"

namespace scalpel {
namespace {

constexpr size_t kMaxSpatial = 2;

}  // namespace

GroupCsrConv::GroupCsrConv(const Node& node) : Kernel(node.api()), layer_(node) {
  const std::vector<int64_t>& weight = layer_.weight_shape();
  if (weight.size() != 3 && weight.size() != 4) {
    layer_.fail("weight_shape " + to_string(weight) + " must be [M, C / group, kW] or [M, C / group, kH, kW]");
  }
  spatial_ = weight.size() - 2;
  geometry_.group = node.int_attribute("group");
  if (!multiply(weight[1], geometry_.group, &geometry_.in_channels)) {
    layer_.fail("group " + std::to_string(geometry_.group) + " is too large");
  }
  const std::vector<int64_t> strides = read(node, "strides", spatial_);
  const std::vector<int64_t> dilations = read(node, "dilations", spatial_);
  const std::vector<int64_t> pads = read(node, "pads", 2 * spatial_);
  for (size_t axis = 0; axis < spatial_; ++axis) {
    const size_t to = kMaxSpatial - spatial_ + axis;  // a 1-D convolution has only a width
    geometry_.kernel[to] = weight[2 + axis];
    geometry_.strides[to] = strides[axis];
    geometry_.dilations[to] = dilations[axis];
    geometry_.pads[to] = pads[axis];
    geometry_.pads[kMaxSpatial + to] = pads[spatial_ + axis];
  }
}

void GroupCsrConv::compute(OrtKernelContext& context) const {
  Layer::Call call(layer_, context);
  const Shape& x = call.x_shape();
  if (x.rank != 2 + spatial_ || x.dims[1] != geometry_.in_channels) {
    layer_.fail("X " + to_string(x.dims, x.rank) + " must have the shape [N, " +
                std::to_string(geometry_.in_channels) + (spatial_ == 1 ? ", W]" : ", H, W]"));
  }
  const int64_t in_h = spatial_ == 1 ? 1 : x.dims[2], in_w = x.dims[1 + spatial_];
  int64_t out_h = 0, out_w = 0;
  if (!output_size(geometry_, in_h, in_w, &out_h, &out_w)) {
    layer_.fail("X " + to_string(x.dims, x.rank) + " with its pads is smaller than the kernel");
  }
  Shape shape = x;
  shape.dims[1] = layer_.matrix().M;
  shape.dims[2] = out_h;
  shape.dims[1 + spatial_] = out_w;
  float* Y = call.output(shape);
  const Epilogue epilogue = call.epilogue(shape);
  if (std::find(shape.dims, shape.dims + shape.rank, 0) != shape.dims + shape.rank) return;
  run(call, x.dims[0], in_h, in_w, Y, epilogue);
}

std::vector<int64_t> GroupCsrConv::read(const Node& node, const char* name, size_t length) const {
  std::vector<int64_t> values = node.ints_attribute(name);
  if (values.size() != length) {
    layer_.fail(std::string(name) + " must be " + std::to_string(length) + " ints for a weight of shape " +
                to_string(layer_.weight_shape()) + ", got " + to_string(values));
  }
  return values;
}

}  // namespace scalpel
