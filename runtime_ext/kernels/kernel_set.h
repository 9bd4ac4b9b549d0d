// The vector kernels of one instruction set, as data: what dispatch, tests and benchmarks go by.
//
// A kernel does one contiguous piece of the work on one thread; the plans (vector_gemm.cpp, vector_conv.cpp) cut
// the work, lay out its operands and know nothing of the instruction set but the number of lanes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/interface.h"
#include "kernels/value_types.h"

namespace scalpel {

// SpMM fetches activations into the first cache this many steps before it multiplies them.
constexpr int64_t kStepsAhead = 8;

// read_stream and copy_stream go by so many vectors at once.
constexpr int kStreamVectors = 8;

// A range of row blocks times a panel of pixels: Y[m, p] = clamp(sum of w[m, s] * X[offsets[s] + p] + ...) over the
// steps s of row m, for p < pixels. Layout of the weights: see row_blocks.h.
struct SpmmCall {
  const int64_t* group_begin;  // first step of each row group, and the end
  const float* weights;
  const uint32_t* offsets;  // [steps + kStepsAhead] in floats; what is past the end is never multiplied
  int64_t r;                // rows of a row group
  int64_t block_begin, block_end;
  int64_t rows;  // what there is of rows from the first block to the end of the matrix
  const float* X;
  int64_t pixels;  // at least 1
  float* Y;                    // first row; `ldy` floats from row to row
  int64_t ldy;
  const float* bias;      // first row, or null
  const float* residual;  // like Y, or null
  float min, max;
};

struct SpmmKernel {
  const char* name;
  int rows;         // of a row block
  int max_vectors;  // of pixels in a register tile
  void (*run)(const SpmmCall& call);
};

// Y = Y * gate(Y)
struct GateCall {
  Gate gate;
  float* Y;  // [rows, columns], `ld` floats from row to row
  int64_t rows, columns, ld;
};

// What an item of a GEMV stream is; see gemv_streams.h.
enum class GemvLayout {
  kRowVectors,     // `lanes` weights of one row
  kColumnVectors,  // `width` rows' weights of one column
  kElements,       // one weight
};

struct GemvCall {
  const void* values;   // float, Float16, Bfloat16 or int8_t
  const void* indices;  // uint16 or uint32
  const int64_t* slice_begin;
  const uint32_t* lengths;
  const int64_t* stream_row;
  int64_t n_streams;
  int64_t first_slice, last_slice;
  int64_t M;
  const float* x;
  float* y;               // [M]
  const float* scale;     // [M], what the sum of each row is multiplied by, or null
  const float* bias;      // [M] or null
  const float* residual;  // [M] or null
  float min, max;
};

struct GemvKernel {
  const char* name;
  GemvLayout layout;
  int width;      // floats of an item
  int streams;    // of a slice: what the kernel interleaves
  int most_rows;  // of X for which one GEMV each beats SpMM
  void (*run[4][2])(const GemvCall& call);  // by ValueType, and by uint16 or uint32 indices
};

// to[j * ld_to + i] = clamp(from[i * ld_from + j] + residual[j * ld_to + i]) for i < rows, j < columns.
struct TransposeCall {
  const float* from;
  int64_t rows, columns, ld_from;
  float* to;
  int64_t ld_to;
  const float* residual;  // like `to`, or null
  float min, max;
};

// Rows whose distance is a multiple of so many floats share few sets of the first cache, whose ways hold 4 KiB. To
// such rows a transpose writes up to kMostRowsByRow of `from` in one go for each, which is faster the more there are.
constexpr int64_t kConflictingFloats = 512;
constexpr int64_t kMostRowsByRow = 128;

// to[y, x] = from[y * stride_h + top, x * stride_w + left], zero where that is outside from[in_h, in_w]. There is room
// for whole vectors.
struct PlaneCopy {
  const float* from;
  int64_t in_h, in_w;
  int64_t top, left, stride_h, stride_w;
  float* to;
  int64_t out_h, out_w;
  const uint16_t* inside;  // of a plane that is the input moved: bits of the lanes of each vector that lie inside; or null
};

// Channels of a depthwise convolution, clamp(sum + bias + residual). Every column of vectors passes over all of them.
struct DepthwiseCall {
  int64_t channels;
  const float* from;  // [channels, in_h, in_w]
  int64_t in_h, in_w;
  int64_t top, left;     // padding
  const float* weights;  // [channels, size, size]
  const float* bias;     // [channels], or null
  float* to;             // [channels, out_h, out_w]
  int64_t out_h, out_w;
  const float* residual;  // like `to`, or null
  float min, max;
};

struct DepthwiseKernel {
  const char* name;
  int size;    // of the kernel, in both dimensions
  int stride;  // likewise
  void (*run)(const DepthwiseCall& call);
};

// Channels of a local response normalisation for a panel of pixels; see LrnView for the arrays.
struct LrnCall {
  int64_t channel_begin, channel_end;
  const int32_t* window_begin;  // of channel 0
  const int32_t* window_end;
  const float* bias;
  float alpha;
  const float* from;  // channel 0, first pixel of the panel; `ld` floats from channel to channel
  int64_t ld;
  int64_t pixels;
  float* to;  // like `from`, not the same
};

struct LrnKernel {
  const char* name;
  float beta;
  void (*run)(const LrnCall& call);
};

struct KernelSet {
  Isa isa;
  int lanes;
  const SpmmKernel* spmm;  // most rows first; the last has one row
  size_t n_spmm;
  const GemvKernel* gemv;  // most specific first; the last takes any group shape
  size_t n_gemv;
  const DepthwiseKernel* depthwise;
  size_t n_depthwise;
  const LrnKernel* lrn;  // one for each beta
  size_t n_lrn;
  void (*gate)(const GateCall& call);
  void (*transpose)(const TransposeCall& call);
  void (*copy_plane)(const PlaneCopy& copy);
  // Multiply-adds in `rounds` rounds of independent ones, for measuring the machine's peak; returns their number.
  double (*multiply_add)(int64_t rounds, float* result);
  // Read or copy memory, for measuring the machine's bandwidth; `count` is a multiple of kStreamVectors vectors.
  float (*read_stream)(const float* from, int64_t count, int64_t passes);
  void (*copy_stream)(const float* from, int64_t count, float* to, int64_t passes);
};

// The first kernel of the set that handles groups of r × c.
const SpmmKernel& spmm_kernel(const KernelSet& set, int64_t r);
const GemvKernel& gemv_kernel(const KernelSet& set, int64_t r, int64_t c);

}  // namespace scalpel
