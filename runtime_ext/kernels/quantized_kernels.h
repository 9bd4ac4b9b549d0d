// The kernels of quantized layers of one instruction set, as data: what dispatch, tests and benchmarks go by.
//
// SpMM works on tiles: up to `tile_pixels` pixels (columns of the activations) of every input that some weight reads,
// re-laid so that each input is one aligned row of bytes. All row blocks pass over a tile while it is in the caches.
// The bytes of four such rows are interleaved in registers, so that one instruction adds four products to the sum of
// each pixel, whichever four inputs they are. See docs/adding-a-kernel.md for what was tried.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/quantized.h"

namespace scalpel {

constexpr int64_t kMostTilePixels = 64;
constexpr int64_t kMostFinishedRows = 64;

// Rows of a tile: to + i * tile_pixels holds the pixels from + offsets[i] of the i-th input, but `fill` where the mask
// of its tap has no bit. Nothing is read there. A tile of fewer pixels than fill four vectors has them in another order:
// each 16 bytes hold 4 * vectors pixels.
struct TileCall {
  const uint8_t* from;
  const int64_t* offsets;  // [rows]
  const uint32_t* taps;    // [rows], or null: all 0
  const uint64_t* masks;   // of each tap; `mask_stride` from one to the next
  int64_t mask_stride;
  int64_t rows;
  int64_t pixels;
  uint8_t flip;  // these bits of what is read are inverted
  uint8_t fill;
  const uint8_t* begin;  // bytes in [begin, end) may be read
  const uint8_t* end;
  uint8_t* to;
};

// A plane of bytes of each channel: to[c, y, x] = from[c, y * stride_h + top, x * stride_w + left] with the bits of `flip`
// inverted, `fill` where that is outside from[c, in_h, in_w]. In each plane there is room for kMostTilePixels more bytes.
struct BytePlanes {
  int64_t channels;
  const uint8_t* from;
  int64_t in_h, in_w;
  int64_t top, left, stride_h, stride_w;
  uint8_t flip, fill;
  uint8_t* to;
  int64_t to_channel;  // bytes from channel to channel
  int64_t out_h, out_w;
};

// to[j * ld_to + i] = from[i * ld_from + j] with the bits of `flip` inverted, for i < rows, j < columns. In each row of
// `to` there is room for `room` >= rows bytes.
struct ByteTranspose {
  const uint8_t* from;
  int64_t rows, columns, ld_from;
  uint8_t* to;
  int64_t ld_to;
  int64_t room;
  uint8_t flip;
};

// Rows of another type than those a kernel stores are int32, and finished by `finish`.
enum class QuadStore {
  kInt32,     // sums
  kBytes,     // requantized: |float(sum) * scale| stays below 2^31
  kResidual,  // requantized after a residual of bytes is added
  kLanes,     // sums of a row as the vectors have them: lane l of vector v is pixel (l / 4 * vectors + v) * 4 + l % 4
};

// What becomes of the sums of some rows, M rounded up to whole blocks.
struct QuadRows {
  int64_t pixels;
  const int32_t* bias;
  const float* scale;
  void* Y;  // of the first row; `ldy` elements from row to row
  int64_t ldy;
  // Of kBytes and kResidual.
  bool is_signed;
  int32_t zero_point;
  int32_t min, max;  // of Y's bytes
  // Of kResidual: laid out like Y. The results before they are clamped stay below 2^31 if is_bounded.
  bool is_bounded;
  const void* residual;
  bool residual_is_signed;
  Residual sum;  // everything but values and type
};

// Row blocks times tiles that follow each other: one, or several whole ones. Y is that of the first row of first_block,
// `pixels` are those of a tile.
struct QuadCall : QuadRows {
  // Of a QuadMatrix; offsets of columns in bytes of X.
  const int64_t* begin;
  const uint32_t* offsets;
  const int8_t* weights;
  int64_t r;
  int64_t rows;  // M
  int64_t first_block, last_block;
  const uint8_t* X;
  int64_t tiles;
  int64_t ld_x;  // bytes from tile to tile
};

// Depthwise convolution: rows of the weight, each times pixels of one channel. Tile i is pixels [i * tile, ...), for tiles
// of four vectors; where the mask of a tap has no bit, `fill` is read.
struct QuadDepthwiseCall : QuadRows {
  int64_t channels, rows_of_channel;
  const uint8_t* X;        // of the first channel
  int64_t ld_x;            // bytes from channel to channel
  int64_t taps;            // of the kernel; the three arrays have whole quads of them, the last with weights of zero
  const int64_t* offsets;  // [taps], in bytes from the channel, of what the first pixel of the output reads
  const uint64_t* masks;   // [taps, mask_stride], by tile
  int64_t mask_stride;
  const int8_t* weights;   // [channels, rows_of_channel, taps]
  uint8_t flip;           // these bits of what is read are inverted
  uint8_t fill;
  const uint8_t* begin;  // bytes in [begin, end) may be read
  const uint8_t* end;
};

// Columns of a matrix times a vector: the lanes are rows.
struct QuadGemvCall {
  const int64_t* begin;
  const uint16_t* narrow_columns;  // [steps, 4]; one of the two
  const uint32_t* columns;
  const int8_t* weights;
  int64_t r;
  int64_t first_block, last_block;
  const uint8_t* x;     // [K]
  const int32_t* bias;  // by row, M rounded up to whole blocks
  int32_t* Y;           // likewise
};

struct QuadKernel {
  const char* name;
  int height;  // of a row block
  void (*spmm[4][4])(const QuadCall& call);  // by QuadStore, and by vectors - 1
  void (*gemv)(const QuadGemvCall& call);
};

// Sums to a row of a finished layer, as store_sum of quantized_output.h does one by one: `count` of row m, or of rows m
// to m + count - 1 of one pixel.
struct FinishCall {
  const int32_t* sums;
  int64_t count;
  const float* scale;       // of the first; see scale_step
  const float* float_bias;  // likewise, or null
  int64_t scale_step;       // 0: the same for all
  const void* residual;     // of the first, or null
  void* Y;                  // of the first
  const QuantizedEpilogue* epilogue;
};

// The same for some rows of a tile that become columns of Y: its rows are pixels.
struct FinishColumnsCall {
  const int32_t* sums;  // [rows, kMostTilePixels], each row as kLanes leaves it
  int64_t rows, pixels;     // at most kMostFinishedRows
  const float* scale;       // of the first row
  const float* float_bias;  // likewise, or null
  const void* residual;     // laid out like Y, or null
  void* Y;                  // of the first row and pixel; `ldy` elements from pixel to pixel
  int64_t ldy;
  const QuantizedEpilogue* epilogue;
};

struct QuantizedKernels {
  const char* name;
  Isa isa;
  bool takes_signed;  // activations, else unsigned
  int vector_pixels;  // of a vector of sums; a tile has four vectors
  const QuadKernel* quads;  // most rows first; the last has one
  size_t n_quads;
  void (*depthwise[3])(const QuadDepthwiseCall& call);  // by QuadStore
  void (*lay_tile)(const TileCall& call);
  void (*copy_planes)(const BytePlanes& planes);
  void (*transpose_bytes)(const ByteTranspose& call);
  void (*finish)(const FinishCall& call);
  void (*finish_columns)(const FinishColumnsCall& call);
  // Products in `rounds` rounds of independent dot products, for measuring the machine's peak; returns their number.
  double (*dot_products)(int64_t rounds, int32_t* result);
};

// The first kernel of the set for row groups of r rows.
const QuadKernel& quad_kernel(const QuantizedKernels& kernels, int64_t r);

}  // namespace scalpel
