#include "kernels/conv_geometry.h"

#include <limits>

namespace scalpel {
namespace {

bool in_range(int64_t value, int64_t low) { return value >= low && value <= std::numeric_limits<int32_t>::max(); }

}  // namespace

std::string check_geometry(const GroupCsrView& matrix, const ConvGeometry& geometry) {
  for (int axis = 0; axis < 2; ++axis) {
    if (!in_range(geometry.kernel[axis], 1)) return "kernel sizes must be positive int32";
    if (!in_range(geometry.strides[axis], 1)) return "strides must be positive int32";
    if (!in_range(geometry.dilations[axis], 1)) return "dilations must be positive int32";
  }
  for (int64_t pad : geometry.pads) {
    if (!in_range(pad, 0)) return "pads must be non-negative int32";
  }
  const int64_t group = geometry.group, channels = geometry.in_channels;
  if (group < 1 || channels < 0 || channels % group != 0 || matrix.M % group != 0) {
    return "group=" + std::to_string(group) + " must divide the " + std::to_string(channels) +
           " input and the " + std::to_string(matrix.M) + " output channels";
  }
  if (group > 1 && (matrix.M / group) % matrix.r != 0) {
    return "a row block of " + std::to_string(matrix.r) + " rows straddles the conv groups of " +
           std::to_string(matrix.M / group) + " output channels";
  }
  const int64_t taps = geometry.kernel[0] * geometry.kernel[1], channels_per_group = channels / group;
  if (matrix.K % taps != 0 || matrix.K / taps != channels_per_group) {
    return "K=" + std::to_string(matrix.K) + " is not " + std::to_string(channels_per_group) +
           " input channels per group × " + std::to_string(geometry.kernel[0]) + " × " +
           std::to_string(geometry.kernel[1]);
  }
  return {};
}

int64_t output_extent(const ConvGeometry& geometry, int axis, int64_t input_extent) {
  const int64_t padded = input_extent + geometry.pads[axis] + geometry.pads[axis + 2];
  const int64_t kernel = (geometry.kernel[axis] - 1) * geometry.dilations[axis] + 1;
  return padded < kernel ? 0 : (padded - kernel) / geometry.strides[axis] + 1;
}

bool output_size(const ConvGeometry& geometry, int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) {
  *out_h = output_extent(geometry, 0, in_h);
  *out_w = output_extent(geometry, 1, in_w);
  return *out_h > 0 && *out_w > 0;
}

}  // namespace scalpel
