// A matrix repacked for GEMV (one column of activations): many streams of items read side by side.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "kernels/kernel_set.h"

namespace scalpel {

// A stream is all that one accumulator sums: with row vectors and elements one row, with column vectors `width`
// rows. Its items are `width` weights and the index of what they meet in x (counted in items with row vectors, in
// floats else).
//
// Streams are sorted by length, longest first, and cut into slices of kernel.streams. A full slice holds first,
// item by item, what all its streams have ([length of the shortest][streams] items), then what is left of
// each stream in turn; sorted, that is nearly nothing. The last slice, if it is not full, holds streams in turn.
struct GemvStreams {
  GemvStreams(const GroupCsrView& matrix, const GemvKernel& kernel);

  int64_t M, K;
  GemvKernel kernel;
  // [items, width], as wide as the file stores them; in the order of ValueType.
  std::variant<std::vector<float>, std::vector<Float16>, std::vector<Bfloat16>, std::vector<int8_t>> values;
  std::vector<float> row_scale;          // [M] of integers, else empty
  std::vector<uint16_t> indices_u16;     // [items], empty if an index does not fit
  std::vector<uint32_t> indices_u32;     // [items], empty otherwise
  std::vector<int64_t> slice_begin;      // [slices + 1], first item
  std::vector<uint32_t> lengths;         // [streams], items
  std::vector<int64_t> stream_row;       // [streams], first row

  size_t weights() const {
    return std::visit([](const auto& stored) { return stored.size(); }, values);
  }
  int64_t slices() const { return static_cast<int64_t>(slice_begin.size()) - 1; }

  // The first slice of part `i` when the slices are cut into `parts` of about equal size.
  int64_t part_begin(size_t i, size_t parts) const;

  // y[M] = clamp(W x + bias + residual) for slices [first, last); with row vectors x must be readable up to K
  // rounded up to `width`.
  void run(const float* x, float* y, const Epilogue& epilogue, int64_t first, int64_t last) const;

 private:
  template <typename Value>
  void repack(const GroupCsrView& matrix);
};

}  // namespace scalpel
