// A blocked transpose with an epilogue: brings X[N, K] to [K][N] for SpMM, and its result back.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

template <typename Simd>
void transpose(const TransposeCall& call) {
  using Vector = typename Simd::Vector;
  constexpr int kLanes = Simd::kLanes;
  const Vector min = Simd::set(call.min), max = Simd::set(call.max);
  const int64_t whole_rows = call.rows / kLanes * kLanes, whole_columns = call.columns / kLanes * kLanes;
  const auto one = [&](int64_t i, int64_t j) {
    float value = call.from[i * call.ld_from + j];
    if (call.residual != nullptr) value += call.residual[j * call.ld_to + i];
    value = value < call.min ? call.min : value;
    call.to[j * call.ld_to + i] = value > call.max ? call.max : value;
  };
  for (int64_t i = 0; i < whole_rows; i += kLanes) {
    for (int64_t j = 0; j < whole_columns; j += kLanes) {
      Vector block[kLanes];
#pragma GCC unroll 16
      for (int n = 0; n < kLanes; ++n) block[n] = Simd::load(call.from + (i + n) * call.ld_from + j);
      Simd::transpose(block);
#pragma GCC unroll 16
      for (int n = 0; n < kLanes; ++n) {
        const int64_t at = (j + n) * call.ld_to + i;
        if (call.residual != nullptr) block[n] = Simd::add(block[n], Simd::load(call.residual + at));
        Simd::store(call.to + at, Simd::clamp(block[n], min, max));
      }
    }
    for (int64_t j = whole_columns; j < call.columns; ++j) {
      for (int64_t n = i; n < i + kLanes; ++n) one(n, j);
    }
  }
  for (int64_t i = whole_rows; i < call.rows; ++i) {
    for (int64_t j = 0; j < call.columns; ++j) one(i, j);
  }
}

}  // namespace
}  // namespace scalpel
