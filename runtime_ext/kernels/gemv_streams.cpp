#include "kernels/gemv_streams.h"

#include <algorithm>
#include <numeric>

#include "kernels/scalar_matrix.h"

namespace scalpel {
namespace {

inline bool is_zero(float value) { return value == 0.0f; }
inline bool is_zero(Float16 value) { return (value.bits & 0x7fff) == 0; }
inline bool is_zero(Bfloat16 value) { return (value.bits & 0x7fff) == 0; }
inline bool is_zero(int8_t value) { return value == 0; }

template <typename Value>
struct Streams {
  std::vector<Value> values;
  std::vector<uint32_t> indices;
  std::vector<int64_t> begin{0};  // [streams + 1], first item
  std::vector<int64_t> row;       // [streams]

  void end_stream(int64_t first_row) {
    row.push_back(first_row);
    begin.push_back(static_cast<int64_t>(indices.size()));
  }
};

// The streams of one row group, row by row or strip by strip, in order.
template <typename Value>
void append_row_group(const GroupCsrView& matrix, int64_t group, const GemvKernel& kernel, Streams<Value>* streams) {
  const auto* values = static_cast<const Value*>(matrix.values);
  const int64_t r = matrix.r, c = matrix.c, width = kernel.width;
  const int64_t rows_of_item = kernel.layout == GemvLayout::kColumnVectors ? width : 1;
  const int64_t columns_of_item = kernel.layout == GemvLayout::kRowVectors ? width : 1;
  const int64_t rows = std::min(r, matrix.M - group * r);
  for (int64_t row = 0; row < rows; row += rows_of_item) {
    for (int64_t i = matrix.row_offsets[group]; i < matrix.row_offsets[group + 1]; ++i) {
      const int64_t first = column_of(matrix, i) * c;
      for (int64_t j = 0; j < c && first + j < matrix.K; j += columns_of_item) {
        // Weights outside the matrix are dropped: the file may hold anything there.
        const auto weight = [&](int64_t n) {
          const int64_t m = row + (rows_of_item > 1 ? n : 0), k = j + (rows_of_item > 1 ? 0 : n);
          return m < rows && first + k < matrix.K ? values[(i * r + m) * c + k] : Value{};
        };
        bool zero = true;
        for (int64_t n = 0; n < width && zero; ++n) zero = is_zero(weight(n));
        if (zero) continue;
        for (int64_t n = 0; n < width; ++n) streams->values.push_back(weight(n));
        streams->indices.push_back(static_cast<uint32_t>((first + j) / columns_of_item));
      }
    }
    streams->end_stream(group * r + row);
  }
}

}  // namespace

GemvStreams::GemvStreams(const GroupCsrView& matrix, const GemvKernel& kernel_)
    : M(matrix.M), K(matrix.K), kernel(kernel_), slice_begin{0} {
  switch (matrix.value_type) {
    case ValueType::kFloat32:
      repack<float>(matrix);
      break;
    case ValueType::kFloat16:
      repack<Float16>(matrix);
      break;
    case ValueType::kBfloat16:
      repack<Bfloat16>(matrix);
      break;
    case ValueType::kInt8:
      repack<int8_t>(matrix);
      row_scale.assign(matrix.row_scale, matrix.row_scale + M);
      break;
  }
}

template <typename Value>
void GemvStreams::repack(const GroupCsrView& matrix) {
  Streams<Value> streams;
  const int64_t rows_of_stream = kernel.layout == GemvLayout::kColumnVectors ? kernel.width : 1;
  streams.row.reserve(static_cast<size_t>(M / rows_of_stream) + 1);
  for (int64_t group = 0; group + 1 < matrix.n_row_offsets; ++group) {
    append_row_group(matrix, group, kernel, &streams);
  }
  const size_t n_streams = streams.row.size(), width = static_cast<size_t>(kernel.width);
  const auto length = [&](size_t stream) { return streams.begin[stream + 1] - streams.begin[stream]; };
  std::vector<size_t> order(n_streams);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return length(a) > length(b); });

  std::vector<Value> sorted;
  sorted.reserve(streams.values.size());
  std::vector<uint32_t> indices;
  indices.reserve(streams.indices.size());
  const auto append = [&](size_t stream, int64_t item) {
    const auto at = static_cast<size_t>(streams.begin[stream] + item);
    indices.push_back(streams.indices[at]);
    const auto from = streams.values.begin() + static_cast<ptrdiff_t>(at * width);
    sorted.insert(sorted.end(), from, from + static_cast<ptrdiff_t>(width));
  };
  const auto of_slice = static_cast<size_t>(kernel.streams);
  for (size_t first = 0; first < n_streams; first += of_slice) {
    const size_t end = std::min(first + of_slice, n_streams);
    const int64_t common = end - first == of_slice ? length(order[end - 1]) : 0;
    for (int64_t item = 0; item < common; ++item) {
      for (size_t i = first; i < end; ++i) append(order[i], item);
    }
    for (size_t i = first; i < end; ++i) {
      for (int64_t item = common; item < length(order[i]); ++item) append(order[i], item);
      lengths.push_back(static_cast<uint32_t>(length(order[i])));
      stream_row.push_back(streams.row[order[i]]);
    }
    slice_begin.push_back(static_cast<int64_t>(indices.size()));
  }
  values = std::move(sorted);
  if (std::all_of(indices.begin(), indices.end(), [](uint32_t index) { return index <= UINT16_MAX; })) {
    indices_u16.assign(indices.begin(), indices.end());
  } else {
    indices_u32 = std::move(indices);
  }
}

int64_t GemvStreams::part_begin(size_t i, size_t parts) const {
  if (i == parts) return slices();
  const double wanted = static_cast<double>(slice_begin.back()) * static_cast<double>(i) / static_cast<double>(parts);
  return std::lower_bound(slice_begin.begin(), slice_begin.end(), wanted,
                          [](int64_t begin, double value) { return static_cast<double>(begin) < value; }) -
         slice_begin.begin();
}

void GemvStreams::run(const float* x, float* y, const Epilogue& epilogue, int64_t first, int64_t last) const {
  GemvCall call{};
  std::visit([&](const auto& stored) { call.values = stored.data(); }, values);
  call.slice_begin = slice_begin.data();
  call.lengths = lengths.data();
  call.stream_row = stream_row.data();
  call.n_streams = static_cast<int64_t>(lengths.size());
  call.first_slice = first;
  call.last_slice = last;
  call.M = M;
  call.x = x;
  call.y = y;
  call.scale = row_scale.empty() ? nullptr : row_scale.data();
  call.bias = epilogue.bias;
  call.residual = epilogue.residual;
  call.min = epilogue.min;
  call.max = epilogue.max;
  const bool is_narrow = indices_u32.empty();
  call.indices = is_narrow ? static_cast<const void*>(indices_u16.data()) : indices_u32.data();
  kernel.run[values.index()][is_narrow ? 0 : 1](call);
}

}  // namespace scalpel
