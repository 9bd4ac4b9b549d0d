// Copies an image plane with padding, or every strides-th row and column of it.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

// Lanes l with 0 <= first + l < size.
template <typename Simd>
typename Simd::Mask lanes_inside(int64_t first, int64_t size) {
  constexpr int64_t kLanes = Simd::kLanes;
  const int64_t begin = first < 0 ? (-first < kLanes ? -first : kLanes) : 0;
  const int64_t end = size - first < kLanes ? size - first : kLanes;
  return Simd::lanes(static_cast<int>(begin), static_cast<int>(end > begin ? end : begin));
}

// Calls load(row) for the vector at column x of each row that lies inside the input. Rows are short (7 or 14 values):
// each is a few vectors, whose masks are the same in every row, so the loop over the vectors is the outer one.
template <typename Simd, typename Load>
void copy_column_of_vectors(const PlaneCopy& copy, int64_t x, const Load& load) {
  const int64_t columns = copy.out_w - x < Simd::kLanes ? copy.out_w - x : Simd::kLanes;
  for (int64_t y = 0; y < copy.out_h; ++y) {
    const int64_t in_y = y * copy.stride_h + copy.top;
    const bool inside = in_y >= 0 && in_y < copy.in_h;
    const auto row = inside ? load(copy.from + in_y * copy.in_w) : Simd::zero();
    const int64_t at = y * copy.out_w + x;
    if (copy.out_h * copy.out_w - at >= Simd::kLanes) {
      Simd::store(copy.to + at, row);
    } else {
      Simd::store_first(copy.to + at, row, static_cast<int>(columns));
    }
  }
}

// A plane as wide as the input is the input moved by a number of values, but for the columns that this brings over
// from the neighbouring row.
template <typename Simd>
void copy_moved(const PlaneCopy& copy) {
  constexpr int64_t kLanes = Simd::kLanes;
  const int64_t width = copy.out_w, size = copy.out_h * width, in_size = copy.in_h * width;
  const int64_t shift = copy.top * width + copy.left;
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t first = i + shift;
    const bool inside = first >= 0 && first + kLanes <= in_size;
    const auto values =
        inside ? Simd::load(copy.from + first) : Simd::load_masked(copy.from + first, lanes_inside<Simd>(first, in_size));
    if (size - i >= kLanes) {
      Simd::store(copy.to + i, values);
    } else {
      Simd::store_first(copy.to + i, values, static_cast<int>(size - i));
    }
  }
  const int64_t begin = copy.left < 0 || copy.left >= width ? 0 : width - copy.left;
  const int64_t end = copy.left >= 0 || copy.left <= -width ? width : -copy.left;
  for (int64_t x = begin; x < end; ++x) {
    for (int64_t y = 0; y < copy.out_h; ++y) copy.to[y * width + x] = 0.0f;
  }
}

template <typename Simd>
void copy_plane(const PlaneCopy& copy) {
  constexpr int64_t kLanes = Simd::kLanes;
  if (copy.stride_h == 1 && copy.stride_w == 1 && copy.out_w == copy.in_w) return copy_moved<Simd>(copy);
  if (copy.stride_w > 2) {
    for (int64_t y = 0; y < copy.out_h; ++y) {
      const int64_t in_y = y * copy.stride_h + copy.top;
      for (int64_t x = 0; x < copy.out_w; ++x) {
        const int64_t in_x = x * copy.stride_w + copy.left;
        const bool inside = in_y >= 0 && in_y < copy.in_h && in_x >= 0 && in_x < copy.in_w;
        copy.to[y * copy.out_w + x] = inside ? copy.from[in_y * copy.in_w + in_x] : 0.0f;
      }
    }
    return;
  }
  // From right to left and downwards: what a vector writes past the end of its row, a later one writes again.
  for (int64_t x = (copy.out_w - 1) / kLanes * kLanes; x >= 0; x -= kLanes) {
    const int64_t first = x * copy.stride_w + copy.left;
    const auto low = lanes_inside<Simd>(first, copy.in_w);
    if (copy.stride_w == 1) {
      copy_column_of_vectors<Simd>(copy, x, [&](const float* row) { return Simd::load_masked(row + first, low); });
    } else {
      const auto high = lanes_inside<Simd>(first + kLanes, copy.in_w);
      copy_column_of_vectors<Simd>(copy, x, [&](const float* row) {
        return Simd::even(Simd::load_masked(row + first, low), Simd::load_masked(row + first + kLanes, high));
      });
    }
  }
}

}  // namespace
}  // namespace scalpel
