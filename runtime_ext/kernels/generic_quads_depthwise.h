// Depthwise convolution of bytes: four taps of a kernel are four rows of bytes, moved against each other, and become quads
// as four inputs do (generic_quads.h). Nothing is laid first: each row is read once for each tap.
//
// Included by the translation unit of an instruction set only, compiled without contraction of a * b + c; all of it has
// internal linkage.
#pragma once

#include <cstdint>

#include "kernels/generic_quads.h"

namespace scalpel {
namespace {

// `Taps` is how many the kernel has, 0: as many as the call says.
template <typename S, QuadStore kStore, int Taps, bool kFlips>
class DepthwiseRows {
  using Int = typename S::Int;
  using Weights = decltype(S::template weights<1>(nullptr, 0));
  using Store = typename StoreOf<S, kStore>::Type;
  static constexpr int64_t kTile = S::kLanes * 4;
  static constexpr int kQuads = Taps == 0 ? 1 : (Taps + kQuadBytes - 1) / kQuadBytes;

 public:
  explicit DepthwiseRows(const QuadDepthwiseCall& call)
      : call_(call), whole_tiles_(call.pixels / kTile), rest_(call.pixels % kTile), whole_(with_pixels(call, kTile)),
        part_(with_pixels(call, rest_)), flip_(S::set8(call.flip)),
        fill_(S::set8(kFlips ? call.fill ^ call.flip : call.fill)) {}

  void run() const {
    if constexpr (kStore == QuadStore::kInt32) return run<false>();
    if (whole_.is_plain()) return run<true>();
    run<false>();
  }

 private:
  static QuadRows with_pixels(QuadRows rows, int64_t pixels) {
    rows.pixels = pixels;
    return rows;
  }

  template <bool kPlain>
  void run() const {
    constexpr int64_t kElement = kStore == QuadStore::kInt32 ? sizeof(int32_t) : 1;
    const int64_t rows = call_.channels * call_.rows_of_channel, row_bytes = quads() * kQuadBytes;
    const int8_t* row_weights = call_.weights;
    auto* y = static_cast<uint8_t*>(call_.Y);
    const auto* residual = static_cast<const uint8_t*>(call_.residual);
    for (int64_t row = 0; row < rows; ++row, row_weights += row_bytes, y += call_.ldy * kElement) {
      const uint8_t* x = call_.X + row / call_.rows_of_channel * call_.ld_x;
      Weights weights[kQuads];
      if constexpr (Taps != 0) {
#pragma GCC unroll 8
        for (int i = 0; i < kQuads; ++i) weights[i] = S::template weights<1>(row_weights, i);
      }
      const auto tile = [&](int64_t i, const Store& store, auto plain) __attribute__((always_inline)) {
        Int sums[4];
        const Int start = S::set32(call_.bias[row]);
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) sums[v] = start;
        if constexpr (Taps != 0) {
#pragma GCC unroll 8
          for (int quad = 0; quad < kQuads; ++quad) multiply(x, i, quad, Taps - quad * 4, weights[quad], sums);
        } else {
          for (int64_t quad = 0; quad < quads(); ++quad) {
            multiply(x, i, quad, kQuadBytes, S::template weights<1>(row_weights + quad * kQuadBytes, 0), sums);
          }
        }
        uint8_t* to = y + i * kTile * kElement;
        if constexpr (kStore == QuadStore::kInt32) {
          store_sums<S, 4>(sums, reinterpret_cast<int32_t*>(to), i < whole_tiles_ ? kTile : rest_);
        } else {
          const uint8_t* added = kStore == QuadStore::kResidual ? residual + i * kTile : nullptr;
          store.template finish<decltype(plain)::value, 4>(sums, S::broadcast(call_.scale + row), to, added);
        }
      };
      for (int64_t i = 0; i < whole_tiles_; ++i) tile(i, whole_, Plain<kPlain>());
      if (rest_ > 0) tile(whole_tiles_, part_, Plain<false>());
      if constexpr (kStore == QuadStore::kResidual) residual += call_.ldy;
    }
  }

  template <bool kValue>
  struct Plain {
    static constexpr bool value = kValue;
  };

  int64_t quads() const { return (call_.taps + kQuadBytes - 1) / kQuadBytes; }

  // Adds the products of one quad of taps, the first `taps` of which are read.
  __attribute__((always_inline)) void multiply(const uint8_t* x, int64_t tile, int64_t quad, int taps, const Weights& weights,
                                               Int (&sums)[4]) const {
    const auto load = [&](int64_t tap) __attribute__((always_inline)) {
      const Int bytes = load_inside<S>(x + tile * kTile + call_.offsets[tap], call_.masks[tap * call_.mask_stride + tile], fill_,
                                       call_.begin, call_.end);
      return kFlips ? S::flip(bytes, flip_) : bytes;
    };
    const int64_t first = quad * kQuadBytes;
    const Int a = load(first), b = taps > 1 ? load(first + 1) : a;
    const Int c = taps > 2 ? load(first + 2) : a, d = taps > 3 ? load(first + 3) : a;
    Int quads[4];
    interleave<S, 4>(a, b, c, d, quads);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) S::dot(sums[v], quads[v], weights);
  }

  const QuadDepthwiseCall call_;
  const int64_t whole_tiles_, rest_;
  const Store whole_, part_;
  const Int flip_, fill_;
};

template <typename S, QuadStore kStore>
void depthwise(const QuadDepthwiseCall& call) {
  const bool flips = call.flip != 0;
  if (call.taps == 9) {
    return flips ? DepthwiseRows<S, kStore, 9, true>(call).run() : DepthwiseRows<S, kStore, 9, false>(call).run();
  }
  return flips ? DepthwiseRows<S, kStore, 0, true>(call).run() : DepthwiseRows<S, kStore, 0, false>(call).run();
}

}  // namespace
}  // namespace scalpel
