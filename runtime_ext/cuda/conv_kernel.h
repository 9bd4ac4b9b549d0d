// Y[batch, M, out_h, out_w] = clamp(conv(X, W) + bias + residual), W sparse: an implicit SpMM.
//
// A thread computes the outputs of one row block at one pixel. All threads of a thread block read the same weights at
// the same time, and pixels next to each other; a table says where each column of W lies in the input.
//
// The function below compiles for the host too, where tests run it thread by thread.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/packed_matrix.h"
#include "cuda/portable.h"
#include "kernels/activation.h"
#include "kernels/interface.h"

namespace scalpel {

constexpr int kConvThreads = 128;

// Where a column of W reads, from the first padded pixel of an output.
struct alignas(16) Tap {
  int32_t channel;  // within its conv group
  int32_t y;
  int32_t x;
};

struct ConvArguments {
  const void* values;
  const void* columns;
  const int32_t* order;
  const int32_t* offsets;
  const Tap* taps;        // [K]
  const float* bias;      // [M] or null
  const float* X;         // [batch, group * channels, in_h, in_w]
  const float* residual;  // like Y, or null
  float* Y;               // [batch, M, out_h, out_w]
  int64_t M;
  int64_t rows_per_group;  // output channels of a conv group
  int64_t channels;        // input channels of a conv group
  int64_t group;
  int64_t batch, in_h, in_w, out_h, out_w;
  int64_t stride_h, stride_w, pad_top, pad_left;
  int64_t pixel_tiles;  // of kConvThreads pixels of the whole batch
  float min, max;
  Gate gate;
};

template <int kRows, typename Value_, typename Column_>
struct ConvKernel {
  using Value = Value_;
  using Column = Column_;

  SCALPEL_BOTH static void run(const ConvArguments& a, int64_t thread_block, int thread) {
    const int64_t row_block = thread_block / a.pixel_tiles, pixels = a.out_h * a.out_w;
    const int64_t place = thread_block % a.pixel_tiles * kConvThreads + thread;
    if (place >= a.batch * pixels) return;
    const int64_t image = place / pixels, pixel = place % pixels;
    const int64_t top = pixel / a.out_w * a.stride_h - a.pad_top, left = pixel % a.out_w * a.stride_w - a.pad_left;
    const int64_t first_row = int64_t{a.order[row_block]} * kRows;
    const int64_t plane = a.in_h * a.in_w;
    const float* X = a.X + (image * a.group + first_row / a.rows_per_group) * a.channels * plane;
    constexpr int kWide = 16 / int{sizeof(Value)}, kLoad = kRows < kWide ? kRows : kWide;
    const auto* values = static_cast<const Packet<Value, kLoad>*>(a.values);
    const auto* columns = static_cast<const Column*>(a.columns);
    float sums[kRows];
    for (int i = 0; i < kRows; ++i) sums[i] = 0;
    for (int64_t g = a.offsets[row_block]; g < a.offsets[row_block + 1]; ++g) {
      const Tap tap = a.taps[columns[g]];
      const int64_t y = top + tap.y, x = left + tap.x;
      if (y < 0 || y >= a.in_h || x < 0 || x >= a.in_w) continue;
      const float value = X[tap.channel * plane + y * a.in_w + x];
      SCALPEL_UNROLL
      for (int part = 0; part < kRows / kLoad; ++part) {
        const Packet<Value, kLoad> weights = values[g * (kRows / kLoad) + part];
        SCALPEL_UNROLL
        for (int i = 0; i < kLoad; ++i) sums[part * kLoad + i] += to_float(weights.at[i]) * value;
      }
    }
    SCALPEL_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const int64_t m = first_row + i;
      if (m >= a.M) continue;
      const int64_t output = (image * a.M + m) * pixels + pixel;
      float sum = sums[i];
      if (a.bias != nullptr) sum += a.bias[m];
      if (a.residual != nullptr) sum += a.residual[output];
      a.Y[output] = activate(sum, a.min, a.max, a.gate);
    }
  }
};

// The table of a checked geometry.
inline std::vector<Tap> conv_taps(const ConvGeometry& geometry, int64_t K) {
  std::vector<Tap> taps;
  const int64_t kernel_h = geometry.kernel[0], kernel_w = geometry.kernel[1];
  for (int64_t k = 0; k < K; ++k) {
    taps.push_back({static_cast<int32_t>(k / (kernel_h * kernel_w)),
                    static_cast<int32_t>(k / kernel_w % kernel_h * geometry.dilations[0]),
                    static_cast<int32_t>(k % kernel_w * geometry.dilations[1])});
  }
  return taps;
}

// Thread blocks of a launch.
inline int64_t conv_grid(const PackedMatrix& matrix, const ConvArguments& a) {
  return matrix.row_blocks() * a.pixel_tiles;
}

namespace conv_choice {

template <int kRows, typename Run>
void by_type(const PackedMatrix& matrix, const Run& run) {
  if (matrix.is_half) {
    if (matrix.wide_columns) return run(ConvKernel<kRows, Float16, uint32_t>{});
    return run(ConvKernel<kRows, Float16, uint16_t>{});
  }
  if (matrix.wide_columns) return run(ConvKernel<kRows, float, uint32_t>{});
  return run(ConvKernel<kRows, float, uint16_t>{});
}

}  // namespace conv_choice

// Calls run(ConvKernel<...>{}) with the kernel for a matrix.
template <typename Run>
void with_conv_kernel(const PackedMatrix& matrix, const Run& run) {
  if (matrix.rows == 16) return conv_choice::by_type<16>(matrix, run);
  if (matrix.rows == 8) return conv_choice::by_type<8>(matrix, run);
  if (matrix.rows == 4) return conv_choice::by_type<4>(matrix, run);
  return conv_choice::by_type<1>(matrix, run);
}

}  // namespace scalpel
