// Depthwise convolution of one channel, read in place: each row of the input is loaded once for every column of the
// kernel (or two, with a stride of 2) and goes to all outputs of the tile that read it. What lies outside the input is
// masked, so nothing is padded.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/generic_copy.h"
#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

// A column of vectors of the output: pixels [x, x + lanes) of every row, in tiles of `Rows` rows, as many as it takes
// sums to hide the latency of a multiply-add.
template <typename Simd, int Kernel, int Stride, int Rows>
class DepthwiseColumn {
  using Vector = typename Simd::Vector;
  using Mask = typename Simd::Mask;
  static constexpr int64_t kLanes = Simd::kLanes;
  static constexpr int kInRows = (Rows - 1) * Stride + Kernel;

 public:
  DepthwiseColumn(const DepthwiseCall& call, const Vector (&weights)[Kernel * Kernel], int64_t x)
      : in_h_(call.in_h),
        in_w_(call.in_w),
        top_(call.top),
        out_h_(call.out_h),
        out_w_(call.out_w),
        columns_(static_cast<int>(call.out_w - x < kLanes ? call.out_w - x : kLanes)),
        from_(call.from + x * Stride - call.left),
        to_(call.to + x),
        residual_(call.residual != nullptr ? call.residual + x : nullptr),
        weights_(weights),
        bias_(Simd::set(call.bias)),
        min_(Simd::set(call.min)),
        max_(Simd::set(call.max)) {
    const int64_t first = x * Stride - call.left;
#pragma GCC unroll 5
    for (int i = 0; i < Kernel; ++i) {
      low_[i] = lanes_inside<Simd>(first + i, in_w_);
      if (Stride == 2) high_[i] = lanes_inside<Simd>(first + i + kLanes, in_w_);
    }
    last_whole_ = out_h_ * out_w_ - x - kLanes;
  }

  void run() const {
    for (int64_t y = 0; y < out_h_; y += Rows) {
      const int64_t in_y = y * Stride - top_;
      const bool inside = in_y >= 0 && in_y + kInRows <= in_h_ && (y + Rows - 1) * out_w_ <= last_whole_;
      if (inside) {
        tile<true>(y, in_y);
      } else {
        tile<false>(y, in_y);
      }
    }
  }

 private:
  // Inside: all rows it reads and writes are there, and the vector it writes last ends in the output.
  template <bool Inside>
  void tile(int64_t y, int64_t in_y) const {
    Vector sums[Rows];
#pragma GCC unroll 16
    for (Vector& sum : sums) sum = bias_;
#pragma GCC unroll 20
    for (int in_row = 0; in_row < kInRows; ++in_row) {
      if (!Inside && (in_y + in_row < 0 || in_y + in_row >= in_h_)) continue;
      const float* from = from_ + (in_y + in_row) * in_w_;
      // What each column of the kernel reads.
      Vector values[Kernel + 1];
#pragma GCC unroll 5
      for (int i = 0; i < Kernel; i += Stride) {
        values[i] = Simd::load_masked(from + i, low_[i]);
        if (Stride == 2) {
          const Vector more = Simd::load_masked(from + i + kLanes, high_[i]);
          values[i + 1] = Simd::odd(values[i], more);
          values[i] = Simd::even(values[i], more);
        }
      }
#pragma GCC unroll 5
      for (int i = 0; i < Kernel; ++i) {
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
          const int kernel_row = in_row - row * Stride;
          if (kernel_row < 0 || kernel_row >= Kernel) continue;
          sums[row] = Simd::multiply_add(weights_[kernel_row * Kernel + i], values[i], sums[row]);
        }
      }
    }
    const int64_t first = y * out_w_;
    if (residual_ != nullptr) {
#pragma GCC unroll 16
      for (int row = 0; row < Rows; ++row) {
        if (!Inside && y + row >= out_h_) break;
        sums[row] = Simd::add(sums[row], Simd::load_first(residual_ + first + row * out_w_, columns_));
      }
    }
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
      if (!Inside && y + row >= out_h_) break;
      const int64_t at = first + row * out_w_;
      const Vector result = Simd::clamp(sums[row], min_, max_);
      if (Inside || at <= last_whole_) {
        Simd::store(to_ + at, result);
      } else {
        Simd::store_first(to_ + at, result, columns_);
      }
    }
  }

  const int64_t in_h_, in_w_, top_, out_h_, out_w_;
  const int columns_;
  const float* const from_;
  float* const to_;
  const float* const residual_;
  const Vector (&weights_)[Kernel * Kernel];
  const Vector bias_, min_, max_;
  Mask low_[Kernel], high_[Kernel];
  int64_t last_whole_;  // where the last vector that ends in the output begins, counted from column x
};

template <typename Simd, int Kernel, int Stride, int Rows>
void depthwise_columns(const DepthwiseCall& call) {
  typename Simd::Vector weights[Kernel * Kernel];
#pragma GCC unroll 25
  for (int i = 0; i < Kernel * Kernel; ++i) weights[i] = Simd::set(call.weights[i]);
  // From right to left and downwards: what a vector writes past the end of its row, a later one writes again.
  for (int64_t x = (call.out_w - 1) / Simd::kLanes * Simd::kLanes; x >= 0; x -= Simd::kLanes) {
    DepthwiseColumn<Simd, Kernel, Stride, Rows>(call, weights, x).run();
  }
}

template <typename Simd, int Kernel, int Stride>
void depthwise(const DepthwiseCall& call) {
  // Of two heights of a tile the one that leaves fewer rows of the last tile unused.
  constexpr int kHigh = Simd::kDepthwiseRows, kLow = kHigh - 1;
  const int64_t high = (call.out_h + kHigh - 1) / kHigh * kHigh, low = (call.out_h + kLow - 1) / kLow * kLow;
  if (high <= low) {
    depthwise_columns<Simd, Kernel, Stride, kHigh>(call);
  } else {
    depthwise_columns<Simd, Kernel, Stride, kLow>(call);
  }
}

}  // namespace
}  // namespace scalpel
