// The int8 kernels on SDOT, which adds four products to each of four sums. Compiled with that instruction enabled:
// nothing here may be called, and no inline function of another header instantiated, without checking for it.
#include "kernels/neon_dotprod.h"

#include <arm_neon.h>

namespace scalpel {
namespace {

constexpr int64_t kQuad = 4, kLanes = 4;

int32x4_t load_bias(const Int8Call& call, int64_t row) {
  int32_t bias[kLanes] = {};
  for (int64_t i = 0; call.bias != nullptr && i < kLanes && row + i < call.M; ++i) bias[i] = call.bias[row + i];
  return vld1q_s32(bias);
}

int8x16_t repeated_quad(const int8_t* from) {
  return vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(from)));
}

// Four rows: the lanes of a vector.
void gemv_4(const Int8Call& call) {
  constexpr int kSums = 4;
  for (int64_t block = call.first_block; block < call.last_block; ++block) {
    const int64_t row = block * 4, end = call.begin[block + 1];
    int64_t step = call.begin[block];
    const int8_t* weights = call.weights + step * 4 * kQuad;
    int32x4_t sums[kSums] = {load_bias(call, row), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    const auto take = [&](int32x4_t sum, int i) {
      return vdotq_s32(sum, vld1q_s8(weights + i * 16), repeated_quad(call.X + call.quads[step + i] * kQuad));
    };
    for (; step + kSums <= end; step += kSums, weights += kSums * 16) {
#pragma GCC unroll 4
      for (int i = 0; i < kSums; ++i) sums[i] = take(sums[i], i);
    }
    for (; step < end; ++step, weights += 16) sums[0] = take(sums[0], 0);
    int32_t total[kLanes];
    vst1q_s32(total, vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3])));
    for (int64_t i = 0; i < kLanes && row + i < call.M; ++i) call.Y[row + i] = total[i];
  }
}

// One row: four steps at once are the lanes.
void gemv_1(const Int8Call& call) {
  const auto* X = reinterpret_cast<const int32_t*>(call.X);
  for (int64_t row = call.first_block; row < call.last_block; ++row) {
    const int64_t end = call.begin[row + 1];
    int64_t step = call.begin[row];
    int32x4_t sums = vdupq_n_s32(0);
    for (; step + kLanes <= end; step += kLanes) {
      const uint32_t* quads = call.quads + step;
      const int32x4_t x = {X[quads[0]], X[quads[1]], X[quads[2]], X[quads[3]]};
      sums = vdotq_s32(sums, vld1q_s8(call.weights + step * kQuad), vreinterpretq_s8_s32(x));
    }
    for (; step < end; ++step) {
      const int32x4_t x = {X[call.quads[step]], 0, 0, 0};
      sums = vdotq_s32(sums, repeated_quad(call.weights + step * kQuad), vreinterpretq_s8_s32(x));
    }
    const uint32_t bias = call.bias != nullptr ? static_cast<uint32_t>(call.bias[row]) : 0;
    call.Y[row] = static_cast<int32_t>(bias + static_cast<uint32_t>(vaddvq_s32(sums)));
  }
}

// `Rows` rows times `Vectors` vectors of four rows of X, from `pixel` on.
template <int Rows, int Vectors>
void multiply_tile(const Int8Call& call, int64_t block, int64_t pixel) {
  static_assert(Rows == 1 || Rows == 4, "a register holds the weights of four rows");
  const int64_t row = block * Rows, pixels = (call.N + kLanes - 1) / kLanes * kLanes;
  const int64_t begin = call.begin[block], end = call.begin[block + 1];
  int32x4_t sums[Rows][Vectors];
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i) {
    const bool has_bias = call.bias != nullptr && row + i < call.M;
#pragma GCC unroll 14
    for (int t = 0; t < Vectors; ++t) sums[i][t] = vdupq_n_s32(has_bias ? call.bias[row + i] : 0);
  }
  for (int64_t step = begin; step < end; ++step) {
    const int8_t* x = call.X + (call.quads[step] * pixels + pixel) * kQuad;
    const int8_t* from = call.weights + step * Rows * kQuad;
    const int8x16_t weights = Rows == 1 ? repeated_quad(from) : vld1q_s8(from);
#pragma GCC unroll 14
    for (int t = 0; t < Vectors; ++t) {
      const int8x16_t values = vld1q_s8(x + t * 16);
      if constexpr (Rows == 1) {
        sums[0][t] = vdotq_s32(sums[0][t], values, weights);
      } else {
        sums[0][t] = vdotq_laneq_s32(sums[0][t], values, weights, 0);
        sums[1][t] = vdotq_laneq_s32(sums[1][t], values, weights, 1);
        sums[2][t] = vdotq_laneq_s32(sums[2][t], values, weights, 2);
        sums[3][t] = vdotq_laneq_s32(sums[3][t], values, weights, 3);
      }
    }
  }
  int32_t tile[Rows][Vectors * kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 14
    for (int t = 0; t < Vectors; ++t) vst1q_s32(tile[i] + t * kLanes, sums[i][t]);
  }
  for (int64_t n = 0; n < Vectors * kLanes && pixel + n < call.N; ++n) {
    int32_t* y = call.Y + (pixel + n) * call.M + row;
    for (int64_t i = 0; i < Rows && row + i < call.M; ++i) y[i] = tile[i][n];
  }
}

// The function for tiles of `vectors` <= Vectors vectors.
template <int Rows, int Vectors>
auto tile_function(int64_t vectors) {
  if constexpr (Vectors > 1) {
    if (vectors < Vectors) return tile_function<Rows, Vectors - 1>(vectors);
  }
  return &multiply_tile<Rows, Vectors>;
}

template <int Rows, int MaxVectors>
void spmm(const Int8Call& call) {
  const int64_t vectors = (call.N + kLanes - 1) / kLanes;
  for (int64_t first = 0; first < vectors; first += MaxVectors) {
    const auto tile = tile_function<Rows, MaxVectors>(vectors - first);
    for (int64_t block = call.first_block; block < call.last_block; ++block) tile(call, block, first * kLanes);
  }
}

constexpr Int8Kernel kKernels[] = {
    {"int8_4x4_neon_dotprod", 4, gemv_4, spmm<4, 6>},
    {"int8_1x4_neon_dotprod", 1, gemv_1, spmm<1, 14>},
};

constexpr Int8Kernels kSet = {kKernels, sizeof(kKernels) / sizeof(*kKernels)};

}  // namespace

const Int8Kernels& neon_dotprod_kernels() { return kSet; }

}  // namespace scalpel
