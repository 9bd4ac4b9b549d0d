// Y[N, M] = clamp(X[N, K] · Wᵀ + bias + residual), W sparse: SpMV for N = 1, SpMM for small batches.
//
// A team of warps computes one row block for a tile of rows of X. Its lanes read the groups in turn, 16 bytes of
// values each, so that a warp's loads are contiguous; lanes that hold sums of the same outputs then add them up, first
// within each warp, then over the warps of the team through shared memory.
//
// A kernel is the functions below, in this order, with a barrier before the last: `partial_sums` by every thread,
// `add_from` over each warp, `publish`, `store`. They compile for the host too, where tests run them thread by thread.
#pragma once

#include <cstdint>

#include "cuda/packed_matrix.h"
#include "cuda/portable.h"
#include "kernels/activation.h"

namespace scalpel {

constexpr int kWarp = 32;
constexpr int kGemmWarps = 8;  // of a thread block
constexpr int kGemmThreads = kWarp * kGemmWarps;

struct GemmArguments {
  const void* values;
  const void* columns;
  const int32_t* order;
  const int32_t* offsets;
  const float* bias;      // [M] or null
  const float* X;         // [N, K]
  const float* residual;  // [N, M] or null
  float* Y;               // [N, M]
  int64_t M, K, N;
  int32_t row_blocks;
  int32_t x_tiles;    // of rows of X
  int32_t team;       // warps to a row block: a power of 2, at most kGemmWarps
  bool x_is_aligned;  // every row of X begins at 16 bytes
  float min, max;
  Gate gate;
};

// What a thread block works on; `row_block` counts in the packed order.
struct GemmPlace {
  int64_t row_block;
  int64_t first_x;
  int thread;  // in its team
};

template <int kRows, int kColumns, typename Value_, typename Column_, int kTile>
struct GemmKernel {
  using Value = Value_;
  using Column = Column_;
  static constexpr int kRowsOfX = kTile;
  static constexpr int kGroup = kRows * kColumns;
  static constexpr int kLoad = kGroup < 16 / int{sizeof(Value)} ? kGroup : 16 / int{sizeof(Value)};
  static constexpr int kParts = kGroup / kLoad;  // lanes to a group
  static constexpr int kSums = kRows > 1 ? kLoad : 1;
  static constexpr int kAlike = kRows > 1 ? kParts : 1;  // lane i sums the same outputs as lane i + kAlike
  static constexpr int kOutputs = kRows * kTile;
  static_assert(kRows == 1 || kColumns == 1, "groups are a part of one row, or of one column");

  using Sums = float[kTile][kSums];

  SCALPEL_BOTH static GemmPlace place(const GemmArguments& a, int64_t thread_block, int thread) {
    const int64_t teams = kGemmWarps / a.team;
    const int64_t x_tile = thread_block % a.x_tiles;  // neighbours in time read the same values
    const int team_threads = kWarp * a.team;
    return {thread_block / a.x_tiles * teams + thread / team_threads, x_tile * kTile, thread % team_threads};
  }

  SCALPEL_BOTH static void partial_sums(const GemmArguments& a, const GemmPlace& place, Sums& sums) {
    for (int t = 0; t < kTile; ++t) {
      for (int i = 0; i < kSums; ++i) sums[t][i] = 0;
    }
    if (place.row_block >= a.row_blocks) return;
    const auto* values = static_cast<const Packet<Value, kLoad>*>(a.values);
    const auto* columns = static_cast<const Column*>(a.columns);
    const int64_t begin = int64_t{a.offsets[place.row_block]} * kParts;
    const int64_t end = int64_t{a.offsets[place.row_block + 1]} * kParts;
    const int part = place.thread % kParts;  // the same in every step: a team has a multiple of kParts lanes
    const int64_t rows_of_x = a.N - place.first_x < kTile ? a.N - place.first_x : kTile;
    const float* X = a.X + place.first_x * a.K;
    SCALPEL_UNROLL_BY_4
    for (int64_t i = begin + place.thread; i < end; i += kWarp * a.team) {
      const Packet<Value, kLoad> weights = values[i];
      const int64_t column = columns[i / kParts];
      if constexpr (kRows > 1) {
        multiply_column(weights, X + column, a.K, rows_of_x, sums);
      } else {
        const int64_t k = column * kColumns + part * kLoad;
        multiply_row(weights, X + k, a, a.K - k, rows_of_x, sums);
      }
    }
  }

  // Adds what another lane has. A warp runs this for each distance from kWarp / 2 down to kAlike, with the sums of
  // lane `lane ^ distance`.
  SCALPEL_BOTH static void add_from(Sums& sums, const Sums& other) {
    SCALPEL_UNROLL
    for (int t = 0; t < kTile; ++t) {
      SCALPEL_UNROLL
      for (int i = 0; i < kSums; ++i) sums[t][i] += other[t][i];
    }
  }

  // The first warp of a thread's team, in its thread block.
  SCALPEL_BOTH static int first_warp(const GemmArguments& a, int thread) { return thread / kWarp / a.team * a.team; }

  // Leaves the sums of a warp where `store` finds them: totals is [kOutputs], of this warp.
  SCALPEL_BOTH static void publish(int lane, const Sums& sums, float* totals) {
    if (lane >= kAlike) return;
    for (int t = 0; t < kTile; ++t) {
      for (int i = 0; i < kSums; ++i) totals[t * kRows + lane * kSums + i] = sums[t][i];
    }
  }

  // totals: [team, kOutputs], of the warps of this team.
  SCALPEL_BOTH static void store(const GemmArguments& a, const GemmPlace& place, const float* totals) {
    if (place.row_block >= a.row_blocks) return;
    const int64_t first_row = int64_t{a.order[place.row_block]} * kRows;
    for (int output = place.thread; output < kOutputs; output += kWarp * a.team) {
      const int64_t n = place.first_x + output / kRows, m = first_row + output % kRows;
      if (n >= a.N || m >= a.M) continue;
      float sum = 0;
      for (int warp = 0; warp < a.team; ++warp) sum += totals[warp * kOutputs + output];
      if (a.bias != nullptr) sum += a.bias[m];
      if (a.residual != nullptr) sum += a.residual[n * a.M + m];
      a.Y[n * a.M + m] = activate(sum, a.min, a.max, a.gate);
    }
  }

 private:
  // One column of several rows: each element of X is loaded once for all of them.
  SCALPEL_BOTH static void multiply_column(const Packet<Value, kLoad>& weights, const float* x, int64_t K,
                                           int64_t rows_of_x, Sums& sums) {
    SCALPEL_UNROLL
    for (int t = 0; t < kTile; ++t) {
      if (t >= rows_of_x) break;
      const float value = x[t * K];
      SCALPEL_UNROLL
      for (int i = 0; i < kSums; ++i) sums[t][i] += to_float(weights.at[i]) * value;
    }
  }

  // A part of one row; `left` columns of X are not beyond its end.
  SCALPEL_BOTH static void multiply_row(const Packet<Value, kLoad>& weights, const float* x, const GemmArguments& a,
                                        int64_t left, int64_t rows_of_x, Sums& sums) {
    constexpr int kAtOnce = kLoad < 4 ? kLoad : 4;
    SCALPEL_UNROLL
    for (int t = 0; t < kTile; ++t) {
      if (t >= rows_of_x) break;
      const float* row = x + t * a.K;
      if (a.x_is_aligned && left >= kLoad) {
        SCALPEL_UNROLL
        for (int i = 0; i < kLoad; i += kAtOnce) {
          const auto loaded = *reinterpret_cast<const Packet<float, kAtOnce>*>(row + i);
          SCALPEL_UNROLL
          for (int j = 0; j < kAtOnce; ++j) sums[t][0] += to_float(weights.at[i + j]) * loaded.at[j];
        }
      } else {
        SCALPEL_UNROLL
        for (int i = 0; i < kLoad; ++i) {
          if (i < left) sums[t][0] += to_float(weights.at[i]) * row[i];
        }
      }
    }
  }
};

// Rows of X in a tile. Matrices with wide columns are too rare to have kernels for each.
inline int gemm_tile(const PackedMatrix& matrix, int64_t N) {
  if (matrix.wide_columns) return 8;
  return N == 1 ? 1 : N <= 4 ? 4 : 8;
}

// How many warps share a row block: more where there are few row blocks, as long as each has something to read.
inline int gemm_team(const PackedMatrix& matrix) {
  constexpr int64_t kEnoughWarps = 2048;
  const int64_t row_blocks = matrix.row_blocks();
  const int64_t bytes = matrix.n_groups() * matrix.rows * matrix.columns * (matrix.is_half ? 2 : 4);
  int team = 1;
  while (team < kGemmWarps && row_blocks * team < kEnoughWarps && bytes > row_blocks * 16 * kWarp * team) team *= 2;
  return team;
}

// Thread blocks of a launch.
inline int64_t gemm_grid(const GemmArguments& a) {
  const int64_t teams = kGemmWarps / a.team;
  return (a.row_blocks + teams - 1) / teams * a.x_tiles;
}

namespace gemm_choice {

template <int kRows, int kColumns, typename Value, typename Column, typename Run>
void by_tile(int tile, const Run& run) {
  switch (tile) {
    case 1:
      return run(GemmKernel<kRows, kColumns, Value, Column, 1>{});
    case 4:
      return run(GemmKernel<kRows, kColumns, Value, Column, 4>{});
    default:
      return run(GemmKernel<kRows, kColumns, Value, Column, 8>{});
  }
}

template <int kRows, int kColumns, typename Run>
void by_type(const PackedMatrix& matrix, int tile, const Run& run) {
  if (matrix.is_half) {
    if (matrix.wide_columns) return run(GemmKernel<kRows, kColumns, Float16, uint32_t, 8>{});
    return by_tile<kRows, kColumns, Float16, uint16_t>(tile, run);
  }
  if (matrix.wide_columns) return run(GemmKernel<kRows, kColumns, float, uint32_t, 8>{});
  return by_tile<kRows, kColumns, float, uint16_t>(tile, run);
}

}  // namespace gemm_choice

// Calls run(GemmKernel<...>{}) with the kernel for a matrix and its tile (`gemm_tile`).
template <typename Run>
void with_gemm_kernel(const PackedMatrix& matrix, int tile, const Run& run) {
  if (matrix.rows == 16) return gemm_choice::by_type<16, 1>(matrix, tile, run);
  if (matrix.rows == 8) return gemm_choice::by_type<8, 1>(matrix, tile, run);
  if (matrix.rows == 4) return gemm_choice::by_type<4, 1>(matrix, tile, run);
  if (matrix.columns == 8) return gemm_choice::by_type<1, 8>(matrix, tile, run);
  if (matrix.columns == 4) return gemm_choice::by_type<1, 4>(matrix, tile, run);
  return gemm_choice::by_type<1, 1>(matrix, tile, run);
}

}  // namespace scalpel
