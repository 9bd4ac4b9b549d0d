// SpMM for every instruction set: a tile of rows × vectors of pixels stays in registers while the steps of a row
// block pass over it. The shape of the loop is that of XNNPACK's and Elsen et al., "Fast Sparse ConvNets" (CVPR
// 2020), with blocks of rows and one offset a step.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstddef>
#include <limits>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

constexpr float kNoBias[16] = {};

// How many steps ahead weights and offsets are fetched: they come in order, but from a cache far away.
constexpr int64_t kWeightStepsAhead = 128;

// A bool that is a constant inside a generic lambda.
template <bool kValue>
struct Flag {
  static constexpr bool value = kValue;
};

// What a tile has beside its whole vectors of pixels.
enum class Rest {
  kNothing,
  kLanes,  // the last vector is not whole
  kPixel,  // one more pixel, for which the rows of the block are the lanes of a vector
};

// One row block of a call.
struct SpmmBlock {
  const float* weights;
  const uint32_t* offsets;
  int64_t steps;
  int64_t row;  // counted from the first of the call
};

// `Rows` of the `BlockRows` rows of a row block, from row `first` on, times `Vectors` vectors of pixels from `pixel`
// on; of the last one only `tail` pixels if Rest is kLanes.
template <typename Simd, int BlockRows, int Rows, int Vectors, Rest kRest>
[[gnu::always_inline]] inline void multiply_tile(const SpmmCall& call, const SpmmBlock& block, int first, int64_t pixel,
                                                 int tail) {
  using Vector = typename Simd::Vector;
  constexpr int kLanes = Simd::kLanes, kVectorsPerLine = 16 / kLanes;
  constexpr bool kPixel = kRest == Rest::kPixel;
  using Column = typename Simd::template Column<Rows>;
  const float* source = call.X + pixel;
  const float* weights = block.weights + first;
  const uint32_t* offsets = block.offsets;
  const int64_t steps = block.steps, row = block.row + first, rows = call.rows - row, ldy = call.ldy;
  const auto tail_lanes = Simd::lanes(0, tail);
  const auto whole = [](int t) { return kRest != Rest::kLanes || t + 1 < Vectors; };
  float* y = call.Y + row * ldy + pixel;
  const float* residual = call.residual != nullptr ? call.residual + row * ldy + pixel : nullptr;
  if (residual != nullptr) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; t += kVectorsPerLine) __builtin_prefetch(residual + i * ldy + t * kLanes);
    }
  }
  // Small tiles take several steps at once, each with its own sums, to hide the latency of a multiply-add.
  constexpr int kSteps = Simd::steps_at_once(Rows, Vectors);
  Vector partial[kSteps][Rows][Vectors];
  [[maybe_unused]] typename Column::Vector column = Column::zero();
  const auto take_step = [&](auto is_first, Vector(&sums)[Rows][Vectors], int64_t step,
                             const float* w) __attribute__((always_inline)) {
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
      x[t] = whole(t) ? Simd::load(from) : Simd::load_masked(from, tail_lanes);
    }
    const auto step_weights = Simd::template step_weights<Rows>(w);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vector weight = Simd::weight(step_weights, i);
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; ++t) {
        sums[i][t] = decltype(is_first)::value ? Simd::multiply(weight, x[t]) : Simd::multiply_add(weight, x[t], sums[i][t]);
      }
    }
    if constexpr (kPixel) {
      column = Column::multiply_add(Column::load(w), Column::broadcast(source + offset + Vectors * kLanes), column);
    }
  };
  constexpr Flag<true> yes;
  constexpr Flag<false> no;
  // The first step only multiplies, and the bias comes last: the stores of the tile before are still on their way, and
  // on Zen 5 a multiply-add waits for a store where a multiplication does not.
  int64_t step = 0;
  if (steps >= kSteps) {
#pragma GCC unroll 16
    for (int u = 0; u < kSteps; ++u) take_step(yes, partial[u], u, weights + u * BlockRows);
    step = kSteps;
    weights += kSteps * BlockRows;
  } else {
#pragma GCC unroll 16
    for (auto& sums : partial) {
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 16
        for (int t = 0; t < Vectors; ++t) sums[i][t] = Simd::zero();
      }
    }
  }
  for (; step + kSteps <= steps; step += kSteps) {
#pragma GCC unroll 16
    for (int u = 0; u < kSteps; ++u) take_step(no, partial[u], step + u, weights + u * BlockRows);
    if constexpr (Simd::kFetchesWeightsAhead) {
      __builtin_prefetch(weights + kWeightStepsAhead * BlockRows);
      __builtin_prefetch(offsets + step + kWeightStepsAhead);
    }
    weights += kSteps * BlockRows;
  }
  if constexpr (kSteps > 1) {
    for (; step < steps; ++step, weights += BlockRows) take_step(no, partial[0], step, weights);
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
  const float* bias = call.bias != nullptr ? call.bias + row : kNoBias;
  const Vector min = Simd::set(call.min), max = Simd::set(call.max);
  const auto finish = [&](auto has_residual, auto has_max) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      if (i >= rows) break;
      const Vector start = Simd::broadcast(bias + i);
#pragma GCC unroll 16
      for (int t = 0; t < Vectors; ++t) {
        const int64_t at = i * ldy + t * kLanes;
        Vector sum = Simd::add(sums[i][t], start);
        if constexpr (decltype(has_residual)::value) {
          sum = Simd::add(sum, whole(t) ? Simd::load(residual + at) : Simd::load_masked(residual + at, tail_lanes));
        }
        sum = Simd::at_least(sum, min);
        if constexpr (decltype(has_max)::value) sum = Simd::at_most(sum, max);
        if (whole(t)) {
          Simd::store(y + at, sum);
        } else {
          Simd::store_first(y + at, sum, tail);
        }
      }
    }
  };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool has_max = call.max < kInfinity;
  if (residual == nullptr) {
    has_max ? finish(no, yes) : finish(no, no);
  } else {
    has_max ? finish(yes, yes) : finish(yes, no);
  }
  if constexpr (kPixel) {
    float pixels[Rows];
    Column::store(pixels, column);
    for (int i = 0; i < Rows && i < rows; ++i) {
      const int64_t at = i * ldy + Vectors * kLanes;
      float sum = pixels[i] + bias[i];
      if (residual != nullptr) sum += residual[at];
      sum = sum < call.min ? call.min : sum;
      y[at] = sum > call.max ? call.max : sum;
    }
  }
}

// A row block times `tiles` tiles of `Vectors` vectors.
template <typename Simd, int BlockRows, int Vectors, Rest kRest>
void multiply_block(const SpmmCall& call, const SpmmBlock& block, int64_t pixel, int64_t tiles, int tail) {
  constexpr int kRows = Simd::tile_rows(BlockRows, Vectors);
  static_assert(BlockRows % kRows == 0, "a row block is cut into whole register tiles");
  for (; tiles > 0; --tiles, pixel += Vectors * Simd::kLanes) {
    for (int i = 0; i < BlockRows && block.row + i < call.rows; i += kRows) {
      multiply_tile<Simd, BlockRows, kRows, Vectors, kRest>(call, block, i, pixel, tail);
    }
  }
}

// The function for tiles of `vectors` <= Vectors vectors.
template <typename Simd, int BlockRows, int Vectors, Rest kRest>
auto block_function(int64_t vectors) {
  if constexpr (Vectors > 1) {
    if (vectors < Vectors) return block_function<Simd, BlockRows, Vectors - 1, kRest>(vectors);
  }
  return &multiply_block<Simd, BlockRows, Vectors, kRest>;
}

template <typename Simd, int BlockRows, int MaxVectors>
void spmm(const SpmmCall& call) {
  constexpr int64_t kLanes = Simd::kLanes;
  // One pixel that is left over costs a step one multiply-add as a column, and as many as the block has rows as a vector.
  constexpr bool kHasColumns = BlockRows >= 4;
  const bool pixel_rest = kHasColumns && call.pixels > kLanes && call.pixels % kLanes == 1;
  const int64_t vectors = pixel_rest ? call.pixels / kLanes : (call.pixels + kLanes - 1) / kLanes;
  // Tiles of two sizes, as even as possible; the last one, a small one, has the rest.
  const int64_t tiles = (vectors + MaxVectors - 1) / MaxVectors;
  const int64_t small = vectors / tiles, n_large = vectors % tiles;
  const int tail = static_cast<int>(pixel_rest ? kLanes : call.pixels - (vectors - 1) * kLanes);
  const auto large_tile = block_function<Simd, BlockRows, MaxVectors, Rest::kNothing>(small + 1);
  const auto small_tile = block_function<Simd, BlockRows, MaxVectors, Rest::kNothing>(small);
  auto last_tile = small_tile;
  if constexpr (kHasColumns) {
    if (pixel_rest) last_tile = block_function<Simd, BlockRows, MaxVectors, Rest::kPixel>(small);
  }
  if (tail < kLanes) last_tile = block_function<Simd, BlockRows, MaxVectors, Rest::kLanes>(small);
  const int64_t n_last = last_tile == small_tile ? 0 : 1, n_small = tiles - n_large - n_last;
  const int64_t blocks_of_group = call.r / BlockRows;
  int64_t group = call.block_begin / blocks_of_group, inside = call.block_begin % blocks_of_group;
  for (int64_t i = call.block_begin; i < call.block_end; ++i) {
    const int64_t begin = call.group_begin[group], steps = call.group_begin[group + 1] - begin;
    const SpmmBlock block{call.weights + begin * call.r + inside * steps * BlockRows, call.offsets + begin, steps,
                          (i - call.block_begin) * BlockRows};
    int64_t pixel = 0;
    if (n_large > 0) large_tile(call, block, pixel, n_large, tail);
    pixel += n_large * (small + 1) * kLanes;
    if (n_small > 0) small_tile(call, block, pixel, n_small, tail);
    pixel += n_small * small * kLanes;
    if (n_last > 0) last_tile(call, block, pixel, n_last, tail);
    if (++inside == blocks_of_group) {
      inside = 0;
      ++group;
    }
  }
}

}  // namespace
}  // namespace scalpel
