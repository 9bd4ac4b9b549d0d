// Depthwise convolution, read in place: each row of the input is loaded once for every column of the kernel (with a
// stride of 2 once) and goes to all outputs of the tile that read it. What lies outside the input is masked, so nothing
// is padded.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/generic_copy.h"
#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

// What rows above and below the input read as: as long as the vectors of a row with a stride of 2 reach.
constexpr float kZeros[48] = {};

// Pixels [x, x + lanes) of every row of the output, in tiles of `Rows` rows: as many as it takes sums to hide the
// latency of a multiply-add.
template <typename Simd, int Kernel, int Stride, int Rows>
class DepthwiseColumn {
  static_assert((Kernel == 3 || Kernel == 5) && (Stride == 1 || Stride == 2), "there are loads for no others");
  using Vector = typename Simd::Vector;
  using Mask = typename Simd::Mask;
  using Weights = typename Simd::template Weights<Kernel * Kernel>;
  static constexpr int64_t kLanes = Simd::kLanes;
  static constexpr int kInRows = (Rows - 1) * Stride + Kernel;

 public:
  DepthwiseColumn(const DepthwiseCall& call, int64_t x)
      : in_h_(call.in_h),
        in_w_(call.in_w),
        top_(call.top),
        out_h_(call.out_h),
        out_w_(call.out_w),
        columns_(static_cast<int>(call.out_w - x < kLanes ? call.out_w - x : kLanes)),
        last_whole_(call.out_h * call.out_w - x - kLanes),
        min_(Simd::set(call.min)),
        max_(Simd::set(call.max)) {
    const int64_t first = x * Stride - call.left;
    if (Stride == 1) {
#pragma GCC unroll 5
      for (int i = 0; i < Kernel; ++i) masks_[i] = lanes_inside<Simd>(first + i, in_w_);
    } else {
      masks_[0] = lanes_inside<Simd>(first, in_w_);
      masks_[1] = lanes_inside<Simd>(first + kLanes, in_w_);
      const int64_t next = first + 2 * kLanes;
      const bool is_last = !Simd::kHasMaskedLoads || next + Kernel - 1 >= in_w_;
      masks_[2] = lanes_inside<Simd>(next, is_last ? in_w_ : next + Kernel - 1);
    }
    whole_ = first >= 0 && first + (Stride == 1 ? kLanes + Kernel - 1 : 3 * kLanes) <= in_w_;
  }

  // One channel; the pointers to column x of the output's first row, and to what its first weight reads there.
  void run(const float* from, const float* weights, float bias, float* to, const float* residual) const {
    const Weights all_weights = Simd::template kept_weights<Kernel * Kernel>(weights);
    const Vector start = Simd::set(bias);
    for (int64_t y = 0; y < out_h_; y += Rows) {
      const int64_t in_y = y * Stride - top_;
      const bool inside = in_y >= 0 && in_y + kInRows <= in_h_ && (y + Rows - 1) * out_w_ <= last_whole_;
      if (Simd::kHasMaskedLoads || !whole_) {
        if (inside) {
          tile<true, false>(y, in_y, from, all_weights, start, to, residual);
        } else {
          tile<false, false>(y, in_y, from, all_weights, start, to, residual);
        }
      } else if constexpr (!Simd::kHasMaskedLoads) {
        if (inside) {
          tile<true, true>(y, in_y, from, all_weights, start, to, residual);
        } else {
          tile<false, true>(y, in_y, from, all_weights, start, to, residual);
        }
      }
    }
  }

 private:
  // Inside: all rows it reads and writes are there, and the vector it writes last ends in the output. Whole: so do
  // all vectors it reads in their rows.
  template <bool Inside, bool Whole>
  __attribute__((always_inline)) void tile(int64_t y, int64_t in_y, const float* from, const Weights& weights,
                                           Vector start, float* to, const float* residual) const {
    Vector sums[Rows];
#pragma GCC unroll 16
    for (Vector& sum : sums) sum = start;
    const float* row_of_input = from + in_y * in_w_;
#pragma GCC unroll 20
    for (int in_row = 0; in_row < kInRows; ++in_row) {
      const bool there = Inside || (in_y + in_row >= 0 && in_y + in_row < in_h_);
      const float* source = there ? row_of_input + in_row * in_w_ : kZeros;
      const auto load = [&](int64_t at, int mask) __attribute__((always_inline)) {
        if constexpr (Whole) return Simd::load(source + at);
        if constexpr (!Inside && !Simd::kHasMaskedLoads) {
          if (!there) return Simd::zero();
        }
        return Simd::load_masked(source + at, masks_[mask]);
      };
      // What each column of the kernel reads.
      Vector values[Kernel];
      if constexpr (Stride == 1) {
#pragma GCC unroll 5
        for (int i = 0; i < Kernel; ++i) values[i] = load(i, i);
      } else {
        const Vector low = load(0, 0), high = load(kLanes, 1), next = load(2 * kLanes, 2);
        const Vector next_even = Kernel > 3 ? Simd::even(next, next) : next;
        values[0] = Simd::even(low, high);
        values[1] = Simd::odd(low, high);
        values[2] = Simd::template slide<1>(values[0], next_even);
        if constexpr (Kernel > 3) {
          values[3] = Simd::template slide<1>(values[1], Simd::odd(next, next));
          values[4] = Simd::template slide<2>(values[0], next_even);
        }
      }
#pragma GCC unroll 5
      for (int i = 0; i < Kernel; ++i) {
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
          const int kernel_row = in_row - row * Stride;
          if (kernel_row < 0 || kernel_row >= Kernel) continue;
          sums[row] = Simd::multiply_add(Simd::weight(weights, kernel_row * Kernel + i), values[i], sums[row]);
        }
      }
    }
    int64_t at = y * out_w_;
    if (residual != nullptr) {
#pragma GCC unroll 16
      for (int row = 0; row < Rows; ++row) {
        if (!Inside && y + row >= out_h_) break;
        sums[row] = Simd::add(sums[row], Simd::load_first(residual + at + row * out_w_, columns_));
      }
    }
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row, at += out_w_) {
      if (!Inside && y + row >= out_h_) break;
      const Vector result = Simd::clamp(sums[row], min_, max_);
      if (Inside || at <= last_whole_) {
        Simd::store(to + at, result);
      } else {
        Simd::store_first(to + at, result, columns_);
      }
    }
  }

  const int64_t in_h_, in_w_, top_, out_h_, out_w_;
  const int columns_;
  const int64_t last_whole_;  // where the last vector that ends in the output begins, counted from column x
  const Vector min_, max_;
  bool whole_;
  Mask masks_[Kernel];  // of a load for each column of the kernel; with a stride of 2, of three vectors in a row
};

template <typename Simd, int Kernel, int Stride, int Rows>
void depthwise_columns(const DepthwiseCall& call) {
  const int64_t in_size = call.in_h * call.in_w, out_size = call.out_h * call.out_w;
  // From right to left and downwards: what a vector writes past the end of its row, a later one writes again.
  for (int64_t x = (call.out_w - 1) / Simd::kLanes * Simd::kLanes; x >= 0; x -= Simd::kLanes) {
    const DepthwiseColumn<Simd, Kernel, Stride, Rows> column(call, x);
    for (int64_t channel = 0; channel < call.channels; ++channel) {
      const int64_t out = channel * out_size + x;
      column.run(call.from + channel * in_size + x * Stride - call.left, call.weights + channel * Kernel * Kernel,
                 call.bias != nullptr ? call.bias[channel] : 0.0f, call.to + out,
                 call.residual != nullptr ? call.residual + out : nullptr);
    }
  }
}

// The same pixel by pixel, for rows that are too short for masks.
template <int Kernel, int Stride>
void depthwise_pixels(const DepthwiseCall& call) {
  for (int64_t channel = 0; channel < call.channels; ++channel) {
    const float* from = call.from + channel * call.in_h * call.in_w;
    const float* weights = call.weights + channel * Kernel * Kernel;
    for (int64_t i = 0; i < call.out_h * call.out_w; ++i) {
      const int64_t at = channel * call.out_h * call.out_w + i;
      const int64_t top = i / call.out_w * Stride - call.top, left = i % call.out_w * Stride - call.left;
      float sum = call.bias != nullptr ? call.bias[channel] : 0.0f;
      for (int64_t y = 0; y < Kernel; ++y) {
        for (int64_t x = 0; x < Kernel; ++x) {
          const int64_t in_y = top + y, in_x = left + x;
          if (in_y < 0 || in_y >= call.in_h || in_x < 0 || in_x >= call.in_w) continue;
          sum += weights[y * Kernel + x] * from[in_y * call.in_w + in_x];
        }
      }
      if (call.residual != nullptr) sum += call.residual[at];
      sum = sum < call.min ? call.min : sum;
      call.to[at] = sum > call.max ? call.max : sum;
    }
  }
}

template <typename Simd, int Kernel, int Stride>
void depthwise(const DepthwiseCall& call) {
  if (!has_masks<Simd>(call.in_w)) return depthwise_pixels<Kernel, Stride>(call);
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
