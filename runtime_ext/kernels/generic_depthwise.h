// Depthwise convolution of one channel, read in place: each row of the input is loaded once for every column of the
// kernel (or two, with a stride of 2) and goes to all outputs of the tile that read it. What lies outside the input is masked, so nothing is padded.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/generic_copy.h"
#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

template <typename Simd, int Kernel, int Stride>
void depthwise(const DepthwiseCall& call) {
  using Vector = typename Simd::Vector;
  using Mask = typename Simd::Mask;
  constexpr int64_t kLanes = Simd::kLanes;
  constexpr int kRows = Stride == 1 ? 4 : 2;  // of the output at once
  constexpr int kInRows = (kRows - 1) * Stride + Kernel;
  Vector weights[Kernel * Kernel];
#pragma GCC unroll 25
  for (int i = 0; i < Kernel * Kernel; ++i) weights[i] = Simd::set(call.weights[i]);
  const Vector bias = Simd::set(call.bias), min = Simd::set(call.min), max = Simd::set(call.max);
  // From right to left and downwards: what a vector writes past the end of its row, a later one writes again.
  for (int64_t x = (call.out_w - 1) / kLanes * kLanes; x >= 0; x -= kLanes) {
    const int64_t first = x * Stride - call.left;
    const int columns = static_cast<int>(call.out_w - x < kLanes ? call.out_w - x : kLanes);
    Mask low[Kernel], high[Kernel];
#pragma GCC unroll 5
    for (int i = 0; i < Kernel; ++i) {
      low[i] = lanes_inside<Simd>(first + i, call.in_w);
      if (Stride == 2) high[i] = lanes_inside<Simd>(first + i + kLanes, call.in_w);
    }
    for (int64_t y = 0; y < call.out_h; y += kRows) {
      Vector sums[kRows];
#pragma GCC unroll 4
      for (Vector& sum : sums) sum = bias;
#pragma GCC unroll 8
      for (int in_row = 0; in_row < kInRows; ++in_row) {
        const int64_t in_y = y * Stride - call.top + in_row;
        if (in_y < 0 || in_y >= call.in_h) continue;
        const float* from = call.from + in_y * call.in_w + first;
        // What each column of the kernel reads.
        Vector values[Kernel + 1];
#pragma GCC unroll 5
        for (int i = 0; i < Kernel; i += Stride) {
          values[i] = Simd::load_masked(from + i, low[i]);
          if (Stride == 2) {
            const Vector more = Simd::load_masked(from + i + kLanes, high[i]);
            values[i + 1] = Simd::odd(values[i], more);
            values[i] = Simd::even(values[i], more);
          }
        }
#pragma GCC unroll 5
        for (int i = 0; i < Kernel; ++i) {
#pragma GCC unroll 4
          for (int row = 0; row < kRows; ++row) {
            const int kernel_row = in_row - row * Stride;
            if (kernel_row < 0 || kernel_row >= Kernel) continue;
            sums[row] = Simd::multiply_add(weights[kernel_row * Kernel + i], values[i], sums[row]);
          }
        }
      }
#pragma GCC unroll 4
      for (int row = 0; row < kRows; ++row) {
        if (y + row >= call.out_h) break;
        const int64_t at = (y + row) * call.out_w + x;
        if (call.residual != nullptr) sums[row] = Simd::add(sums[row], Simd::load_first(call.residual + at, columns));
        const Vector result = Simd::clamp(sums[row], min, max);
        if (call.out_h * call.out_w - at >= kLanes) {
          Simd::store(call.to + at, result);
        } else {
          Simd::store_first(call.to + at, result, columns);
        }
      }
    }
  }
}

}  // namespace
}  // namespace scalpel
