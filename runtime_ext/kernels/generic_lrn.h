// Local response normalisation: one pass over the input, which a window reads again from the first cache.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

enum class LrnPower { kHalf, kThreeQuarters, kOne };

// x / s^beta
template <typename Simd, LrnPower Power>
typename Simd::Vector divide_by_power(typename Simd::Vector x, typename Simd::Vector s) {
  if constexpr (Power == LrnPower::kOne) return Simd::divide(x, s);
  const typename Simd::Vector root = Simd::sqrt(s);
  if constexpr (Power == LrnPower::kHalf) return Simd::divide(x, root);
  return Simd::divide(x, Simd::multiply(root, Simd::sqrt(root)));
}

// `Vectors` vectors of pixels of one channel, the last of them of `columns` pixels; all pointers to the first pixel.
template <typename Simd, LrnPower Power, int Vectors>
void lrn_tile(const float* window, int64_t window_size, int64_t ld, typename Simd::Vector alpha,
              typename Simd::Vector bias, const float* from, int columns, float* to) {
  using Vector = typename Simd::Vector;
  constexpr int64_t kLanes = Simd::kLanes;
  const auto load = [columns](const float* row, int i) {
    return i + 1 < Vectors || columns == kLanes ? Simd::load(row + i * kLanes)
                                                : Simd::load_first(row + i * kLanes, columns);
  };
  Vector sums[Vectors];
#pragma GCC unroll 8
  for (Vector& sum : sums) sum = Simd::zero();
  for (int64_t j = 0; j < window_size; ++j) {
#pragma GCC unroll 8
    for (int i = 0; i < Vectors; ++i) {
      const Vector x = load(window + j * ld, i);
      sums[i] = Simd::multiply_add(x, x, sums[i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Vectors; ++i) {
    const Vector s = Simd::multiply_add(alpha, sums[i], bias);
    const Vector y = divide_by_power<Simd, Power>(load(from, i), s);
    if (i + 1 < Vectors || columns == kLanes) {
      Simd::store(to + i * kLanes, y);
    } else {
      Simd::store_first(to + i * kLanes, y, columns);
    }
  }
}

template <typename Simd, LrnPower Power>
void lrn(const LrnCall& call) {
  constexpr int kVectors = 4;  // enough sums at a time to hide the latency of a multiply-add
  constexpr int64_t kLanes = Simd::kLanes;
  const typename Simd::Vector alpha = Simd::set(call.alpha);
  for (int64_t channel = call.channel_begin; channel < call.channel_end; ++channel) {
    const typename Simd::Vector bias = Simd::broadcast(call.bias + channel);
    const int64_t window_begin = call.window_begin[channel], window_size = call.window_end[channel] - window_begin;
    const float* window = call.from + window_begin * call.ld;
    const float* from = call.from + channel * call.ld;
    float* to = call.to + channel * call.ld;
    int64_t p = 0;
    for (; p + kVectors * kLanes <= call.pixels; p += kVectors * kLanes) {
      lrn_tile<Simd, Power, kVectors>(window + p, window_size, call.ld, alpha, bias, from + p, kLanes, to + p);
    }
    for (; p < call.pixels; p += kLanes) {
      const int64_t rest = call.pixels - p;
      lrn_tile<Simd, Power, 1>(window + p, window_size, call.ld, alpha, bias, from + p,
                               static_cast<int>(rest < kLanes ? rest : kLanes), to + p);
    }
  }
}

}  // namespace
}  // namespace scalpel
