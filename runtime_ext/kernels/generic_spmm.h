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

constexpr float kNoBias[16] = {};

// How many steps ahead weights and offsets are fetched: they come in order, but from a cache far away.
constexpr int64_t kWeightStepsAhead = 128;

// `Rows` of the `BlockRows` rows of a row block, times `Vectors` vectors of pixels from `pixel` on; of the last one
// only `tail` pixels, unless it is Whole.
template <typename Simd, int BlockRows, int Rows, int Vectors, bool Whole>
void multiply_tile(const SpmmCall& call, int64_t pixel, int tail, const float* weights, const uint32_t* offsets,
                   int64_t steps, int64_t row) {
  using Vector = typename Simd::Vector;
  constexpr int kLanes = Simd::kLanes, kVectorsPerLine = 16 / kLanes;
  const float* source = call.X + pixel;
  const auto tail_lanes = Simd::lanes(0, tail);
  const int64_t rows = call.rows - row;
  float* y = call.Y + row * call.ldy + pixel;
  const float* residual = call.residual != nullptr ? call.residual + row * call.ldy + pixel : nullptr;
  if (residual != nullptr) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; t += kVectorsPerLine) __builtin_prefetch(residual + i * call.ldy + t * kLanes);
    }
  }
  // Small tiles take several steps at once, each with its own sums, to hide the latency of a multiply-add.
  constexpr int kSteps = Simd::steps_at_once(Rows, Vectors);
  Vector partial[kSteps][Rows][Vectors];
  const float* bias = call.bias != nullptr ? call.bias + row : kNoBias;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    const Vector start = Simd::broadcast(i < rows ? bias + i : kNoBias);
#pragma GCC unroll 16
    for (int t = 0; t < Vectors; ++t) {
      partial[0][i][t] = start;
#pragma GCC unroll 16
      for (int u = 1; u < kSteps; ++u) partial[u][i][t] = Simd::zero();
    }
  }
  const auto take_step = [&](Vector(&sums)[Rows][Vectors], int64_t step, const float* w) __attribute__((always_inline)) {
    const size_t offset = offsets[step];
    if constexpr (Simd::fetches_ahead(Rows)) {
      const size_t ahead = offsets[step + kStepsAhead];
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; t += kVectorsPerLine) __builtin_prefetch(source + ahead + t * kLanes);
    }
    Vector x[Vectors];
#pragma GCC unroll 16
    for (int t = 0; t < Vectors; ++t) {
      const float* from = source + offset + t * kLanes;
      x[t] = Whole || t + 1 < Vectors ? Simd::load(from) : Simd::load_masked(from, tail_lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vector weight = Simd::broadcast(w + i);
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; ++t) sums[i][t] = Simd::multiply_add(weight, x[t], sums[i][t]);
    }
  };
  int64_t step = 0;
  for (; step + kSteps <= steps; step += kSteps) {
#pragma GCC unroll 16
    for (int u = 0; u < kSteps; ++u) take_step(partial[u], step + u, weights + u * BlockRows);
    __builtin_prefetch(weights + kWeightStepsAhead * BlockRows);
    __builtin_prefetch(offsets + step + kWeightStepsAhead);
    weights += kSteps * BlockRows;
  }
  if constexpr (kSteps > 1) {
    for (; step < steps; ++step, weights += BlockRows) take_step(partial[0], step, weights);
#pragma GCC unroll 16
    for (int u = kSteps / 2; u > 0; u /= 2) {
#pragma GCC unroll 16
      for (int v = 0; v < u; ++v) {
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
          for (int t = 0; t < Vectors; ++t) partial[v][i][t] = Simd::add(partial[v][i][t], partial[v + u][i][t]);
        }
      }
    }
  }
  Vector(&sums)[Rows][Vectors] = partial[0];
  const Vector min = Simd::set(call.min), max = Simd::set(call.max);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    if (i >= rows) break;
#pragma GCC unroll 16
    for (int t = 0; t < Vectors; ++t) {
      const int64_t at = i * call.ldy + t * kLanes;
      if (Whole || t + 1 < Vectors) {
        if (residual != nullptr) sums[i][t] = Simd::add(sums[i][t], Simd::load(residual + at));
        Simd::store(y + at, Simd::clamp(sums[i][t], min, max));
      } else {
        if (residual != nullptr) sums[i][t] = Simd::add(sums[i][t], Simd::load_masked(residual + at, tail_lanes));
        Simd::store_first(y + at, Simd::clamp(sums[i][t], min, max), tail);
      }
    }
  }
}

// A row block times `Vectors` vectors.
template <typename Simd, int BlockRows, int Vectors, bool Whole>
void multiply_block(const SpmmCall& call, int64_t pixel, int tail, const float* weights, const uint32_t* offsets,
                    int64_t steps, int64_t row) {
  constexpr int kRows = Simd::tile_rows(BlockRows, Vectors);
  static_assert(BlockRows % kRows == 0, "a row block is cut into whole register tiles");
  for (int i = 0; i < BlockRows && row + i < call.rows; i += kRows) {
    multiply_tile<Simd, BlockRows, kRows, Vectors, Whole>(call, pixel, tail, weights + i, offsets, steps, row + i);
  }
}

// The function for a tile of `vectors` <= Vectors vectors.
template <typename Simd, int BlockRows, int Vectors, bool Whole>
auto block_function(int64_t vectors) {
  if constexpr (Vectors > 1) {
    if (vectors < Vectors) return block_function<Simd, BlockRows, Vectors - 1, Whole>(vectors);
  }
  return &multiply_block<Simd, BlockRows, Vectors, Whole>;
}

template <typename Simd, int BlockRows, int MaxVectors>
void spmm(const SpmmCall& call) {
  constexpr int64_t kLanes = Simd::kLanes;
  // Tiles of two sizes, as even as possible; the last one, a small one, has the pixels that do not fill a vector.
  const int64_t vectors = (call.pixels + kLanes - 1) / kLanes;
  const int64_t tiles = (vectors + MaxVectors - 1) / MaxVectors;
  const int64_t small = vectors / tiles, n_large = vectors % tiles;
  const int tail = static_cast<int>(call.pixels - (vectors - 1) * kLanes);
  const auto large_tile = block_function<Simd, BlockRows, MaxVectors, true>(small + 1);
  const auto small_tile = block_function<Simd, BlockRows, MaxVectors, true>(small);
  const auto last_tile = tail == kLanes ? small_tile : block_function<Simd, BlockRows, MaxVectors, false>(small);
  const int64_t blocks_of_group = call.r / BlockRows;
  int64_t row = 0;
  for (int64_t block = call.block_begin; block < call.block_end; ++block, row += BlockRows) {
    const int64_t group = block / blocks_of_group, inside = block % blocks_of_group;
    const int64_t begin = call.group_begin[group], steps = call.group_begin[group + 1] - begin;
    const float* weights = call.weights + begin * call.r + inside * steps * BlockRows;
    const uint32_t* offsets = call.offsets + begin;
    int64_t pixel = 0;
    for (int64_t tile = 0; tile < n_large; ++tile, pixel += (small + 1) * kLanes) {
      large_tile(call, pixel, tail, weights, offsets, steps, row);
    }
    for (int64_t tile = n_large; tile + 1 < tiles; ++tile, pixel += small * kLanes) {
      small_tile(call, pixel, tail, weights, offsets, steps, row);
    }
    last_tile(call, pixel, tail, weights, offsets, steps, row);
  }
}

}  // namespace
}  // namespace scalpel
