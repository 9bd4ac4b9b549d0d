// A blocked transpose with an epilogue: brings X[N, K] to [K][N] for SpMM, and its result back.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>
#include <limits>

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

// A block of kLanes × kLanes that lies inside.
template <typename Simd>
void transpose_whole(const TransposeCall& call, int64_t i, int64_t j) {
  using Vector = typename Simd::Vector;
  constexpr int kLanes = Simd::kLanes;
  constexpr int64_t kFloatsAhead = 64;
  const Vector min = Simd::set(call.min), max = Simd::set(call.max);
  Vector block[kLanes];
#pragma GCC unroll 16
  for (int n = 0; n < kLanes; ++n) {
    const float* from = call.from + (i + n) * call.ld_from + j;
    block[n] = Simd::load(from);
    __builtin_prefetch(from + kFloatsAhead);
  }
  Simd::transpose(block);
#pragma GCC unroll 16
  for (int n = 0; n < kLanes; ++n) {
    const int64_t at = (j + n) * call.ld_to + i;
    if (call.residual != nullptr) block[n] = Simd::add(block[n], Simd::load(call.residual + at));
    Simd::store(call.to + at, Simd::clamp(block[n], min, max));
  }
}

template <typename Simd>
void transpose_blocks(const TransposeCall& call) {
  constexpr int64_t kLanes = Simd::kLanes;
  const auto transpose_block = [&](int64_t i, int64_t j) {
    const int64_t rows = call.rows - i, columns = call.columns - j;
    if (rows >= kLanes && columns >= kLanes) {
      transpose_whole<Simd>(call, i, j);
    } else {
      transpose_part<Simd>(call, i, j, static_cast<int>(rows < kLanes ? rows : kLanes),
                           static_cast<int>(columns < kLanes ? columns : kLanes));
    }
  };
  // Along the rows of whichever side has the longer ones: the other side is likely in the cache.
  if (call.ld_from >= call.ld_to) {
    for (int64_t i = 0; i < call.rows; i += kLanes) {
      for (int64_t j = 0; j < call.columns; j += kLanes) transpose_block(i, j);
    }
  } else {
    for (int64_t j = 0; j < call.columns; j += kLanes) {
      for (int64_t i = 0; i < call.rows; i += kLanes) transpose_block(i, j);
    }
  }
}

// The same through a buffer, so that each row of the result is written in one go: rows whose distance is a multiple of
// the size of a way of the first cache all lie in the same few of its sets, and would throw each other out.
template <typename Simd>
void transpose_by_rows(const TransposeCall& call) {
  using Vector = typename Simd::Vector;
  constexpr int64_t kLanes = Simd::kLanes;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  alignas(64) float rows[Simd::kLanes * kMostRowsByRow];
  const Vector min = Simd::set(call.min), max = Simd::set(call.max);
  for (int64_t j = 0; j < call.columns; j += kLanes) {
    const int64_t columns = call.columns - j < kLanes ? call.columns - j : kLanes;
    transpose_blocks<Simd>(
        {call.from + j, call.rows, columns, call.ld_from, rows, kMostRowsByRow, nullptr, -kInfinity, kInfinity});
    for (int64_t n = 0; n < columns; ++n) {
      for (int64_t i = 0; i < call.rows; i += kLanes) {
        const int64_t at = (j + n) * call.ld_to + i;
        const int count = static_cast<int>(call.rows - i < kLanes ? call.rows - i : kLanes);
        Vector values = Simd::load(rows + n * kMostRowsByRow + i);
        if (call.residual != nullptr) values = Simd::add(values, Simd::load_first(call.residual + at, count));
        Simd::store_first(call.to + at, Simd::clamp(values, min, max), count);
      }
    }
  }
}

template <typename Simd>
void transpose(const TransposeCall& call) {
  constexpr int kWays = 8;  // of the first cache, or more
  if (Simd::kLanes > kWays && call.ld_to % kConflictingFloats == 0 && call.rows <= kMostRowsByRow) {
    transpose_by_rows<Simd>(call);
  } else {
    transpose_blocks<Simd>(call);
  }
}

}  // namespace
}  // namespace scalpel
