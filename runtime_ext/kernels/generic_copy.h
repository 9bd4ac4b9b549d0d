// Copies an image plane with padding, or every strides-th row and column of it.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

// Whether there are masks for rows so short.
template <typename Simd>
constexpr bool has_masks(int64_t size) {
  return Simd::kHasMaskedLoads || size >= Simd::kLanes;
}

// Lanes l with 0 <= first + l < size.
template <typename Simd>
typename Simd::Mask lanes_inside(int64_t first, int64_t size) {
  if constexpr (Simd::kHasMaskedLoads) {
    constexpr int64_t kLanes = Simd::kLanes;
    const int64_t begin = first < 0 ? (-first < kLanes ? -first : kLanes) : 0;
    const int64_t end = size - first < kLanes ? size - first : kLanes;
    return Simd::lanes(static_cast<int>(begin), static_cast<int>(end > begin ? end : begin));
  } else {
    return Simd::lanes_of_row(first, size);
  }
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

// A plane as wide as the input is the input moved by a number of values, but for the lanes that lie outside: in columns
// that this brings over from the neighbouring row, or above or below the input.
template <typename Simd>
void copy_moved(const PlaneCopy& copy) {
  constexpr int64_t kLanes = Simd::kLanes;
  constexpr uint16_t kAll = static_cast<uint16_t>((1u << kLanes) - 1);
  const int64_t moved = copy.top * copy.in_w + copy.left;
  const int64_t vectors = (copy.out_h * copy.out_w + kLanes - 1) / kLanes;
  const float* from = copy.from + moved;
  const uint16_t* inside = copy.inside;
  float* to = copy.to;
  if constexpr (Simd::kHasMaskedLoads) {
    for (int64_t i = 0; i < vectors; ++i) {
      Simd::store(to + i * kLanes, inside[i] == kAll ? Simd::load(from + i * kLanes)
                                                     : Simd::load_masked(from + i * kLanes, Simd::lanes_of(inside[i])));
    }
  } else {
    // All vectors but the first and the last lie in the plane as a whole, and may be read whatever is taken of them.
    const int64_t last = copy.in_h * copy.in_w - kLanes - moved;
    const int64_t begin = moved >= 0 ? 0 : (kLanes - 1 - moved) / kLanes, end = last < 0 ? 0 : last / kLanes + 1;
    const int64_t whole_begin = begin < vectors ? begin : vectors, whole_end = end < vectors ? end : vectors;
    int64_t i = 0;
    for (; i < whole_begin; ++i) Simd::store(to + i * kLanes, Simd::load_kept(from + i * kLanes, inside[i]));
    for (; i < whole_end; ++i) {
      Simd::store(to + i * kLanes, Simd::keep(Simd::load(from + i * kLanes), inside[i]));
    }
    for (; i < vectors; ++i) Simd::store(to + i * kLanes, Simd::load_kept(from + i * kLanes, inside[i]));
  }
}

template <typename Simd>
void copy_plane(const PlaneCopy& copy) {
  constexpr int64_t kLanes = Simd::kLanes;
  if (copy.inside != nullptr) return copy_moved<Simd>(copy);
  if (copy.stride_w > 2 || !has_masks<Simd>(copy.in_w)) {
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
