#include "kernels/conv_taps.h"

#include <algorithm>

namespace scalpel {

int64_t place_of(const Plane& plane, const std::vector<Plane>& planes) {
  return std::lower_bound(planes.begin(), planes.end(), plane) - planes.begin();
}

void sort_unique(std::vector<Plane>* planes) {
  std::sort(planes->begin(), planes->end());
  planes->erase(std::unique(planes->begin(), planes->end()), planes->end());
}

Tap ConvTaps::tap_of(int64_t k) const {
  const int64_t kernel_h = geometry_.kernel[0], kernel_w = geometry_.kernel[1], stride = geometry_.strides[0];
  const int64_t y = k / kernel_w % kernel_h * geometry_.dilations[0], x = k % kernel_w * geometry_.dilations[1];
  return {k / (kernel_h * kernel_w), {y % stride, x}, y / stride};
}

Shift ConvTaps::shift_of(int64_t tap) const {
  const auto split = [&](int64_t kernel_index, size_t axis, int64_t* shift) {
    const int64_t stride = geometry_.strides[axis];
    const int64_t first = kernel_index * geometry_.dilations[axis] - geometry_.pads[axis];
    const int64_t phase = (first % stride + stride) % stride;
    *shift = (first - phase) / stride;
    return phase;
  };
  Shift shift;
  shift.phase.row = split(tap / geometry_.kernel[1], 0, &shift.down);
  shift.phase.column = split(tap % geometry_.kernel[1], 1, &shift.right);
  return shift;
}

int64_t ConvTaps::phase_extent(int64_t input_extent, int64_t phase, size_t axis) const {
  const int64_t stride = geometry_.strides[axis];
  return phase < input_extent ? (input_extent - phase - 1) / stride + 1 : 0;
}

uint64_t ConvTaps::mask(int64_t tap, int64_t in_h, int64_t in_w, int64_t out_h, int64_t out_w, int64_t first,
                        int64_t tile) const {
  const Shift shift = shift_of(tap);
  const int64_t rows = phase_extent(in_h, shift.phase.row, 0), columns = phase_extent(in_w, shift.phase.column, 1);
  uint64_t mask = 0;
  for (int64_t pixel = first; pixel < std::min(first + tile, out_h * out_w); ++pixel) {
    const int64_t y = pixel / out_w + shift.down, x = pixel % out_w + shift.right;
    mask |= static_cast<uint64_t>(y >= 0 && y < rows && x >= 0 && x < columns) << (pixel - first);
  }
  return mask;
}

}  // namespace scalpel
