#include "cuda/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "kernels/scalar_matrix.h"

namespace scalpel {
namespace {

constexpr int64_t kMostGroups = std::numeric_limits<int32_t>::max();
constexpr int64_t kMostNarrowColumns = int64_t{1} << 16;

// The first that divides `size`; the last is 1.
template <size_t kCount>
int largest_divisor(const int (&candidates)[kCount], int64_t size) {
  return *std::find_if(candidates, candidates + kCount, [size](int candidate) { return size % candidate == 0; });
}

size_t value_bytes(ValueType type) { return type == ValueType::kFloat32 ? 4 : 2; }

bool is_zero(const unsigned char* value, ValueType type) {
  if (type == ValueType::kFloat32) {
    float number;
    std::memcpy(&number, value, sizeof number);
    return number == 0;
  }
  uint16_t bits;
  std::memcpy(&bits, value, sizeof bits);
  return (bits & 0x7fff) == 0;
}

void append(std::vector<unsigned char>* to, const void* data, size_t bytes) {
  const auto* begin = static_cast<const unsigned char*>(data);
  to->insert(to->end(), begin, begin + bytes);
}

// Copies single values of a matrix of one type.
class Values {
 public:
  explicit Values(const GroupCsrView& matrix)
      : type_(matrix.value_type), data_(static_cast<const unsigned char*>(matrix.values)) {}

  bool is_zero_at(int64_t i) const { return is_zero(at(i), type_); }
  void copy(int64_t i, std::vector<unsigned char>* to) const {
    if (type_ != ValueType::kBfloat16) return append(to, at(i), value_bytes(type_));
    uint16_t upper;
    std::memcpy(&upper, at(i), sizeof upper);
    const uint32_t wide = uint32_t{upper} << 16;
    append(to, &wide, sizeof wide);
  }

 private:
  const unsigned char* at(int64_t i) const { return data_ + static_cast<size_t>(i) * value_bytes(type_); }

  ValueType type_;
  const unsigned char* data_;
};

// Visits the packed groups of one packed row block, left to right: visit(column group, first value in the portable
// arrays). A group's values lie `matrix.c` apart from row to row.
template <typename Visit>
void for_each_group(const GroupCsrView& matrix, const Values& values, const PackedMatrix& packed, int64_t block,
                    const Visit& visit) {
  const int64_t r = matrix.r, c = matrix.c, first_row = block * packed.rows;
  for (int64_t g = matrix.row_offsets[first_row / r]; g < matrix.row_offsets[first_row / r + 1]; ++g) {
    const int64_t first_value = (g * r + first_row % r) * c;
    for (int64_t j = 0; j < c; j += packed.columns) {
      const int64_t k = column_of(matrix, g) * c + j;
      if (k >= matrix.K) break;
      bool is_kept = false;
      for (int64_t row = 0; row < packed.rows; ++row) {
        for (int64_t i = 0; i < packed.columns; ++i) is_kept |= !values.is_zero_at(first_value + row * c + j + i);
      }
      if (is_kept) visit(k / packed.columns, first_value + j);
    }
  }
}

}  // namespace

PackedMatrix pack(const GroupCsrView& matrix, Operation operation) {
  static constexpr int kRows[] = {16, 8, 4, 1}, kColumns[] = {8, 4, 1};
  PackedMatrix packed;
  packed.M = matrix.M;
  packed.K = matrix.K;
  packed.rows = largest_divisor(kRows, matrix.r);
  packed.columns = packed.rows == 1 && operation == Operation::kGemm ? largest_divisor(kColumns, matrix.c) : 1;
  packed.is_half = matrix.value_type == ValueType::kFloat16;
  packed.wide_columns = matrix.K / packed.columns + (matrix.K % packed.columns != 0) > kMostNarrowColumns;

  const Values values(matrix);
  const int64_t row_blocks = matrix.M / packed.rows + (matrix.M % packed.rows != 0);
  if (row_blocks > kMostGroups) throw std::length_error("too many row blocks");
  std::vector<int64_t> lengths(static_cast<size_t>(row_blocks));
  for (int64_t block = 0; block < row_blocks; ++block) {
    for_each_group(matrix, values, packed, block,
                   [&](int64_t, int64_t) { ++lengths[static_cast<size_t>(block)]; });
  }
  if (std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) > kMostGroups) {
    throw std::length_error("too many groups");
  }
  packed.order.resize(static_cast<size_t>(row_blocks));
  std::iota(packed.order.begin(), packed.order.end(), 0);
  std::stable_sort(packed.order.begin(), packed.order.end(), [&](int32_t a, int32_t b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });

  int32_t n_groups = 0;
  packed.offsets.push_back(n_groups);
  for (const int32_t block : packed.order) {
    for_each_group(matrix, values, packed, block, [&](int64_t column, int64_t first_value) {
      for (int64_t row = 0; row < packed.rows; ++row) {
        for (int64_t i = 0; i < packed.columns; ++i) values.copy(first_value + row * matrix.c + i, &packed.values);
      }
      const auto wide = static_cast<uint32_t>(column);
      const auto narrow = static_cast<uint16_t>(column);
      if (packed.wide_columns) {
        append(&packed.column_indices, &wide, sizeof wide);
      } else {
        append(&packed.column_indices, &narrow, sizeof narrow);
      }
      ++n_groups;
    });
    packed.offsets.push_back(n_groups);
  }
  return packed;
}

}  // namespace scalpel
