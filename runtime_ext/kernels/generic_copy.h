// Copies an image plane with padding, or every strides-th row and column of it. Rows are short (7 or 14 values), so
// each is a few vectors, the last of which overlaps the one before.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

template <typename Simd>
void fill_zero(float* to, int64_t count) {
  int64_t i = 0;
  for (; i + Simd::kLanes <= count; i += Simd::kLanes) Simd::store(to + i, Simd::zero());
  if (i < count) Simd::store_first(to + i, Simd::zero(), static_cast<int>(count - i));
}

template <typename Simd>
void copy_row(const float* from, float* to, int64_t count) {
  constexpr int kLanes = Simd::kLanes;
  if (count < kLanes) return Simd::store_first(to, Simd::load_first(from, static_cast<int>(count)), static_cast<int>(count));
  for (int64_t i = 0; i + kLanes < count; i += kLanes) Simd::store(to + i, Simd::load(from + i));
  Simd::store(to + count - kLanes, Simd::load(from + count - kLanes));
}

// to[i] = from[2 i]
template <typename Simd>
void copy_even(const float* from, float* to, int64_t count) {
  constexpr int kLanes = Simd::kLanes;
  if (count < kLanes) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
    return;
  }
  for (int64_t i = 0; i + kLanes < count; i += kLanes) {
    Simd::store(to + i, Simd::even(Simd::load(from + 2 * i), Simd::load(from + 2 * i + kLanes)));
  }
  // The element after the last even one may be outside the input.
  const float* last = from + 2 * (count - kLanes);
  Simd::store(to + count - kLanes, Simd::even(Simd::load(last), Simd::load_first(last + kLanes, kLanes - 1)));
}

template <typename Simd>
void copy_plane(const PlaneCopy& copy) {
  // Columns [begin, end) of the result lie inside the input.
  int64_t begin = copy.left < 0 ? (-copy.left + copy.stride_w - 1) / copy.stride_w : 0;
  int64_t end = copy.in_w > copy.left ? (copy.in_w - copy.left + copy.stride_w - 1) / copy.stride_w : 0;
  begin = begin < copy.out_w ? begin : copy.out_w;
  end = end < copy.out_w ? end : copy.out_w;
  end = end > begin ? end : begin;
  float* to = copy.to;
  for (int64_t y = 0; y < copy.out_h; ++y, to += copy.out_w) {
    const int64_t in_y = y * copy.stride_h + copy.top;
    if (in_y < 0 || in_y >= copy.in_h || begin == end) {
      fill_zero<Simd>(to, copy.out_w);
      continue;
    }
    const float* from = copy.from + in_y * copy.in_w + begin * copy.stride_w + copy.left;
    fill_zero<Simd>(to, begin);
    if (copy.stride_w == 1) {
      copy_row<Simd>(from, to + begin, end - begin);
    } else if (copy.stride_w == 2) {
      copy_even<Simd>(from, to + begin, end - begin);
    } else {
      for (int64_t x = 0; x < end - begin; ++x) to[begin + x] = from[x * copy.stride_w];
    }
    fill_zero<Simd>(to + end, copy.out_w - end);
  }
}

}  // namespace
}  // namespace scalpel
