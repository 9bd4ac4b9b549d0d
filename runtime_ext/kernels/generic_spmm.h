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

// The lanes of `sum` that are wanted, as far as there are any.
template <typename Simd>
[[gnu::noinline]] void store_some(typename Simd::Vector sum, const PixelVector& pixels, float* y, const float* residual,
                                  float min, float max) {
  sum = Simd::compress(sum, pixels.mask);
  if (residual != nullptr) sum = Simd::add(sum, Simd::load_first(residual + pixels.destination, pixels.count));
  Simd::store_first(y + pixels.destination, Simd::clamp(sum, Simd::set(min), Simd::set(max)), pixels.count);
}

// `Rows` of the `BlockRows` rows of a row block, times `Vectors` vectors of pixels.
template <typename Simd, int BlockRows, int Rows, int Vectors>
void multiply_tile(const SpmmCall& call, const PixelVector* pixels, bool whole_vectors, const float* weights,
                   const uint32_t* offsets, int64_t steps, int64_t row) {
  using Vector = typename Simd::Vector;
  const float* sources[Vectors];
#pragma GCC unroll 16
  for (int t = 0; t < Vectors; ++t) sources[t] = call.X + pixels[t].source;
  const int64_t rows = call.rows - row;
  // Small tiles take several steps at once, each with its own sums, to hide the latency of a multiply-add.
  constexpr int kSteps = Simd::steps_at_once(Rows, Vectors);
  constexpr int kVectorsPerLine = 16 / Simd::kLanes;
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
      for (int t = 0; t < Vectors; t += kVectorsPerLine) __builtin_prefetch(sources[t] + ahead);
    }
    Vector x[Vectors];
#pragma GCC unroll 16
    for (int t = 0; t < Vectors; ++t) x[t] = Simd::load(sources[t] + offset);
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
  float* y = call.Y + row * call.ldy;
  const float* residual = call.residual != nullptr ? call.residual + row * call.ldy : nullptr;
  if (whole_vectors && rows >= Rows) {
    const Vector min = Simd::set(call.min), max = Simd::set(call.max);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; ++t) {
        const int64_t at = i * call.ldy + pixels[t].destination;
        if (residual != nullptr) sums[i][t] = Simd::add(sums[i][t], Simd::load(residual + at));
        Simd::store(y + at, Simd::clamp(sums[i][t], min, max));
      }
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      if (i >= rows) break;
      const int64_t at = i * call.ldy;
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; ++t) {
        store_some<Simd>(sums[i][t], pixels[t], y + at, residual != nullptr ? residual + at : nullptr, call.min,
                         call.max);
      }
    }
  }
}

// A row block times `Vectors` vectors.
template <typename Simd, int BlockRows, int Vectors>
void multiply_block(const SpmmCall& call, const PixelVector* pixels, const float* weights, const uint32_t* offsets,
                    int64_t steps, int64_t row) {
  constexpr int kRows = Simd::tile_rows(BlockRows, Vectors);
  static_assert(BlockRows % kRows == 0, "a row block is cut into whole register tiles");
  bool whole_vectors = true;
  for (int t = 0; t < Vectors; ++t) whole_vectors = whole_vectors && pixels[t].count == Simd::kLanes;
  for (int i = 0; i < BlockRows && row + i < call.rows; i += kRows) {
    multiply_tile<Simd, BlockRows, kRows, Vectors>(call, pixels, whole_vectors, weights + i, offsets, steps, row + i);
  }
}

// The function for a tile of `vectors` <= Vectors vectors.
template <typename Simd, int BlockRows, int Vectors>
auto block_function(int64_t vectors) {
  if constexpr (Vectors > 1) {
    if (vectors < Vectors) return block_function<Simd, BlockRows, Vectors - 1>(vectors);
  }
  return &multiply_block<Simd, BlockRows, Vectors>;
}

template <typename Simd, int BlockRows, int MaxVectors>
void spmm(const SpmmCall& call) {
  // Tiles of two sizes, as even as possible.
  const int64_t tiles = (call.n_vectors + MaxVectors - 1) / MaxVectors;
  const int64_t small = call.n_vectors / tiles, n_large = call.n_vectors % tiles;
  const auto small_tile = block_function<Simd, BlockRows, MaxVectors>(small);
  const auto large_tile = block_function<Simd, BlockRows, MaxVectors>(small + 1);
  const int64_t blocks_of_group = call.r / BlockRows;
  int64_t row = 0;
  for (int64_t block = call.block_begin; block < call.block_end; ++block, row += BlockRows) {
    const int64_t group = block / blocks_of_group, inside = block % blocks_of_group;
    const int64_t begin = call.group_begin[group], steps = call.group_begin[group + 1] - begin;
    const float* weights = call.weights + begin * call.r + inside * steps * BlockRows;
    const PixelVector* pixels = call.vectors;
    for (int64_t tile = 0; tile < n_large; ++tile, pixels += small + 1) {
      large_tile(call, pixels, weights, call.offsets + begin, steps, row);
    }
    for (int64_t tile = n_large; tile < tiles; ++tile, pixels += small) {
      small_tile(call, pixels, weights, call.offsets + begin, steps, row);
    }
  }
}

}  // namespace
}  // namespace scalpel
