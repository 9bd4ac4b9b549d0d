// SpMM for every instruction set: a tile of rows × vectors of pixels stays in registers while the steps of a row
// block pass over it. The shape of the loop is that of XNNPACK's and Elsen et al., "Fast Sparse ConvNets" (CVPR
// 2020), with blocks of rows and one offset a step.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstddef>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

template <typename Simd>
void store_pixels(typename Simd::Vector sum, const PixelVector& pixels, float* y, const float* residual,
                  typename Simd::Vector min, typename Simd::Vector max) {
  if (pixels.count == Simd::kLanes) {
    if (residual != nullptr) sum = Simd::add(sum, Simd::load(residual + pixels.destination));
    Simd::store(y + pixels.destination, Simd::clamp(sum, min, max));
  } else {
    sum = Simd::compress(sum, pixels.mask);
    if (residual != nullptr) sum = Simd::add(sum, Simd::load_first(residual + pixels.destination, pixels.count));
    Simd::store_first(y + pixels.destination, Simd::clamp(sum, min, max), pixels.count);
  }
}

// `Rows` of the `BlockRows` rows of a row block, times `Vectors` vectors of pixels.
template <typename Simd, int BlockRows, int Rows, int Vectors>
void multiply_tile(const SpmmCall& call, const float* const* sources, const float* weights, const uint32_t* offsets,
                   int64_t steps, int64_t row) {
  using Vector = typename Simd::Vector;
  Vector sums[Rows][Vectors];
  const int64_t valid_rows = call.rows - row;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    const Vector start = call.bias != nullptr && i < valid_rows ? Simd::broadcast(call.bias + row + i) : Simd::zero();
#pragma GCC unroll 16
    for (int t = 0; t < Vectors; ++t) sums[i][t] = start;
  }
  for (int64_t step = 0; step < steps; ++step) {
    const size_t offset = offsets[step];
    Vector x[Vectors];
#pragma GCC unroll 16
    for (int t = 0; t < Vectors; ++t) x[t] = Simd::load(sources[t] + offset);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vector w = Simd::broadcast(weights + i);
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; ++t) sums[i][t] = Simd::multiply_add(w, x[t], sums[i][t]);
    }
    weights += BlockRows;
  }
  const Vector min = Simd::set(call.min), max = Simd::set(call.max);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    if (i >= valid_rows) break;
    float* y = call.Y + (row + i) * call.ldy;
    const float* residual = call.residual != nullptr ? call.residual + (row + i) * call.ldy : nullptr;
#pragma GCC unroll 16
    for (int t = 0; t < Vectors; ++t) store_pixels<Simd>(sums[i][t], call.vectors[t], y, residual, min, max);
  }
}

template <typename Simd, int BlockRows, int Vectors>
void spmm(const SpmmCall& call) {
  constexpr int kRows = Simd::tile_rows(BlockRows, Vectors);
  static_assert(BlockRows % kRows == 0, "a row block is cut into whole register tiles");
  const float* sources[Vectors];
  for (int t = 0; t < Vectors; ++t) sources[t] = call.X + call.vectors[t].source;
  const int64_t blocks_of_group = call.r / BlockRows;
  int64_t row = 0;
  for (int64_t block = call.block_begin; block < call.block_end; ++block, row += BlockRows) {
    const int64_t group = block / blocks_of_group, inside = block % blocks_of_group;
    const int64_t begin = call.group_begin[group], steps = call.group_begin[group + 1] - begin;
    const float* weights = call.weights + begin * call.r + inside * steps * BlockRows;
    for (int i = 0; i < BlockRows && row + i < call.rows; i += kRows) {
      multiply_tile<Simd, BlockRows, kRows, Vectors>(call, sources, weights + i, call.offsets + begin, steps, row + i);
    }
  }
}

}  // namespace
}  // namespace scalpel
