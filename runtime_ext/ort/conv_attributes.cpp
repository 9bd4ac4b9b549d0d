#include "conv_attributes.h"

#include <string>

#include "error.h"
#include "kernels/conv_geometry.h"
#include "matrix_inputs.h"

namespace scalpel {
namespace {

constexpr size_t kMaxSpatial = 2;

std::vector<int64_t> read(const Node& node, const std::vector<int64_t>& weight_shape, const char* name, size_t length) {
  std::vector<int64_t> values = node.ints_attribute(name);
  if (values.size() != length) {
    node.fail(std::string(name) + " must be " + std::to_string(length) + " ints for a weight of shape " +
              to_string(weight_shape) + ", got " + to_string(values));
  }
  return values;
}

}  // namespace

ConvAttributes::ConvAttributes(const Node& node, const std::vector<int64_t>& weight) : label_(node.label()) {
  if (weight.size() != 3 && weight.size() != 4) {
    node.fail("weight_shape " + to_string(weight) + " must be [M, C / group, kW] or [M, C / group, kH, kW]");
  }
  M_ = weight[0];
  spatial_ = weight.size() - 2;
  geometry_.group = node.int_attribute("group");
  if (!multiply(weight[1], geometry_.group, &geometry_.in_channels)) {
    node.fail("group " + std::to_string(geometry_.group) + " is too large");
  }
  const std::vector<int64_t> strides = read(node, weight, "strides", spatial_);
  const std::vector<int64_t> dilations = read(node, weight, "dilations", spatial_);
  const std::vector<int64_t> pads = read(node, weight, "pads", 2 * spatial_);
  for (size_t axis = 0; axis < spatial_; ++axis) {
    const size_t to = kMaxSpatial - spatial_ + axis;  // a 1-D convolution has only a width
    geometry_.kernel[to] = weight[2 + axis];
    geometry_.strides[to] = strides[axis];
    geometry_.dilations[to] = dilations[axis];
    geometry_.pads[to] = pads[axis];
    geometry_.pads[kMaxSpatial + to] = pads[spatial_ + axis];
  }
}

ConvAttributes::Images ConvAttributes::images(const Shape& x) const {
  if (x.rank != 2 + spatial_ || x.dims[1] != geometry_.in_channels) {
    throw Error(label_ + ": X " + to_string(x.dims, x.rank) + " must have the shape [N, " +
                std::to_string(geometry_.in_channels) + (spatial_ == 1 ? ", W]" : ", H, W]"));
  }
  Images images{x.dims[0], spatial_ == 1 ? 1 : x.dims[2], x.dims[1 + spatial_], x};
  int64_t out_h = 0, out_w = 0;
  if (!output_size(geometry_, images.in_h, images.in_w, &out_h, &out_w)) {
    throw Error(label_ + ": X " + to_string(x.dims, x.rank) + " with its pads is smaller than the kernel");
  }
  images.output.dims[1] = M_;
  images.output.dims[2] = out_h;
  images.output.dims[1 + spatial_] = out_w;
  return images;
}

}  // namespace scalpel
