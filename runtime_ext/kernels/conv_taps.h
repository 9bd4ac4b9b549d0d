// Where the taps of a convolution's kernel read in an image of bytes: what plans that go through it pixel by pixel of the
// output, as if it were one row, have in common.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.h"

namespace scalpel {

// A copy of a channel: its rows from `row` on in steps of the stride, moved left by `column`.
struct Plane {
  int64_t row, column;
  bool operator<(const Plane& other) const { return row != other.row ? row < other.row : column < other.column; }
  bool operator==(const Plane& other) const { return row == other.row && column == other.column; }
};

// The place of a plane among several in order.
int64_t place_of(const Plane& plane, const std::vector<Plane>& planes);
void sort_unique(std::vector<Plane>* planes);

// Where a weight reads: channel of the group, plane of the channel, rows down in it.
struct Tap {
  int64_t channel;
  Plane plane;
  int64_t rows;
};

// Where a tap of the kernel reads: a phase of the input, that is, its rows and columns from there on in steps of the
// strides, and how far down and to the right in it.
struct Shift {
  Plane phase;
  int64_t down, right;
};

class ConvTaps {
 public:
  explicit ConvTaps(const ConvGeometry& geometry) : geometry_(geometry) {}

  int64_t count() const { return geometry_.kernel[0] * geometry_.kernel[1]; }
  Tap tap_of(int64_t k) const;  // k of W[m, k]
  Shift shift_of(int64_t tap) const;
  // Rows (axis 0) or columns that a phase has.
  int64_t phase_extent(int64_t input_extent, int64_t phase, size_t axis) const;
  // Of `tile` pixels of the output from tile * first on, those for which a tap reads inside the image.
  uint64_t mask(int64_t tap, int64_t in_h, int64_t in_w, int64_t out_h, int64_t out_w, int64_t first, int64_t tile) const;

 private:
  ConvGeometry geometry_;
};

}  // namespace scalpel
