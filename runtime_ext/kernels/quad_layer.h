// What the plans of quantized Gemm and Conv have in common.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "kernels/quad_matrix.h"
#include "kernels/quantized_kernels.h"

namespace scalpel {

constexpr double kProductsPerTask = 4e6;  // about 15 µs

// A product of sizes that stays far below the largest int64 instead of overflowing.
inline int64_t saturating_product(std::initializer_list<int64_t> factors) {
  constexpr int64_t kMost = INT64_MAX / 8;
  int64_t product = 1;
  for (int64_t value : factors) {
    if (value == 0) return 0;
    product = product > kMost / value ? kMost : product * value;
  }
  return product;
}

// To whole quads.
constexpr int64_t round_up_taps(int64_t taps) { return (taps + QuadMatrix::kQuad - 1) / QuadMatrix::kQuad * QuadMatrix::kQuad; }

// To whole cache lines.
constexpr int64_t round_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

struct QuadLayer {
  QuadLayer(const GroupCsrView& view, const QuantizedKernels& kernels_)
      : kernels(kernels_), matrix(view), kernel(quad_kernel(kernels_, matrix.height)) {}

  int64_t padded_rows() const { return matrix.blocks() * matrix.height; }
  // Of workspace that a QuadOutput takes.
  int64_t bytes() const { return 2 * round_up(padded_rows() * static_cast<int64_t>(sizeof(float))); }

  const QuantizedKernels& kernels;
  QuadMatrix matrix;
  const QuadKernel& kernel;
};

// One call's output, and the zero point of its input as the kernels need it: subtracted from the bias.
class QuadOutput {
 public:
  QuadOutput(const QuadLayer& layer, const QuantizedInput& X, void* Y, const QuantizedEpilogue& epilogue,
             uint8_t* workspace);

  // Tiles that follow each other in Y, of `pixels` pixels each, from X on; `ld_x` bytes from one to the next.
  struct Tiles {
    const uint8_t* x;
    int64_t pixels, count, ld_x;
  };

  // Row blocks times tiles: element [m, p] of the product is number `first` + m * ldy + p of Y.
  void multiply(const Tiles& tiles, const uint32_t* offsets, int64_t first_block, int64_t last_block, int64_t ldy,
                int64_t first) const;
  // The same for Y[N, M]: element [m, p] is number `first` + p * M + m.
  void multiply_transposed(const uint8_t* x, const uint32_t* offsets, int64_t pixels, int64_t first_block,
                           int64_t last_block, int64_t first) const;
  // Row blocks times a vector, which begins at number `first` of Y. `sums` has room for all padded rows.
  void multiply_vector(const uint8_t* x, const uint16_t* narrow_columns, int64_t first_block, int64_t last_block,
                       int64_t first, int32_t* sums) const;

  // Channels of a depthwise convolution, from that of row `first_row` on: element [m, p] is number `first` + m * pixels + p.
  // What is missing in `call` is what becomes of the sums.
  void multiply_channels(const QuadDepthwiseCall& call, int64_t first_row, int64_t pixels, int64_t first) const;

  uint8_t flip;  // bits of the activations to invert
  uint8_t fill;  // the zero point then

 private:
  // Elements of Y in the array `from`.
  template <typename Pointer>
  static Pointer at(Pointer from, ElementType type, int64_t i);
  void set_store(QuadRows* rows) const;
  // Sums of row m that are number `i` of Y and so on.
  void finish_row(const int32_t* sums, int64_t pixels, int64_t m, int64_t i) const;
  QuadCall call(const uint8_t* x, const uint32_t* offsets, int64_t pixels, int64_t first_block, int64_t last_block) const;

  const QuadLayer& layer_;
  const QuantizedEpilogue& epilogue_;
  void* Y_;
  int32_t* bias_;  // [padded rows]
  float* scale_;   // likewise
  QuadStore store_;
  bool is_bounded_ = false;
  int32_t min_ = 0, max_ = 0;
};

}  // namespace scalpel
