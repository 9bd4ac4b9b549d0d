// A blocked transpose with an epilogue: brings X[N, K] to [K][N] for SpMM, and its result back.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

// A block of kLanes × kLanes, or what there is of it.
template <typename Simd>
[[gnu::noinline]] void transpose_part(const TransposeCall& call, int64_t i, int64_t j, int rows, int columns) {
  using Vector = typename Simd::Vector;
  const Vector min = Simd::set(call.min), max = Simd::set(call.max);
  Vector block[Simd::kLanes];
  const float* from = call.from + i * call.ld_from + j;
#pragma GCC unroll 16
  for (int n = 0; n < Simd::kLanes; ++n) {
    block[n] = n < rows ? Simd::load_first(from + n * call.ld_from, columns) : Simd::zero();
  }
  Simd::transpose(block);
#pragma GCC unroll 16
  for (int n = 0; n < Simd::kLanes; ++n) {
    if (n == columns) break;
    const int64_t at = (j + n) * call.ld_to + i;
    if (call.residual != nullptr) block[n] = Simd::add(block[n], Simd::load_first(call.residual + at, rows));
    Simd::store_first(call.to + at, Simd::clamp(block[n], min, max), rows);
  }
}

template <typename Simd>
void transpose(const TransposeCall& call) {
  using Vector = typename Simd::Vector;
  constexpr int kLanes = Simd::kLanes;
  const Vector min = Simd::set(call.min), max = Simd::set(call.max);
  for (int64_t i = 0; i < call.rows; i += kLanes) {
    const int rows = call.rows - i < kLanes ? static_cast<int>(call.rows - i) : kLanes;
    for (int64_t j = 0; j < call.columns; j += kLanes) {
      const int columns = call.columns - j < kLanes ? static_cast<int>(call.columns - j) : kLanes;
      if (rows < kLanes || columns < kLanes) {
        transpose_part<Simd>(call, i, j, rows, columns);
        continue;
      }
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
  }
}

}  // namespace
}  // namespace scalpel
