#include "kernels/interface.h"

namespace scalpel {
namespace {

template <typename Column>
std::string validate_columns(const GroupCsrView& matrix, const Column* columns, int64_t row_blocks,
                             int64_t column_groups) {
  for (int64_t i = 0; i < matrix.n_groups; ++i) {
    const int64_t column = columns[i];
    if (column < 0 || column >= column_groups) {
      return "column_indices[" + std::to_string(i) + "] = " + std::to_string(column) + " is outside the " +
             std::to_string(column_groups) + " column groups of K=" + std::to_string(matrix.K);
    }
  }
  for (int64_t block = 0; block < row_blocks; ++block) {
    for (int64_t i = matrix.row_offsets[block] + int64_t{1}; i < matrix.row_offsets[block + 1]; ++i) {
      if (columns[i] <= columns[i - 1]) {
        return "column_indices must increase within a row block, but do not after group " + std::to_string(i - 1);
      }
    }
  }
  return {};
}

}  // namespace

std::string validate(const GroupCsrView& matrix) {
  const int64_t M = matrix.M, K = matrix.K, r = matrix.r, c = matrix.c, n_groups = matrix.n_groups;
  if (M < 0 || K < 0) {
    return "shape [" + std::to_string(M) + ", " + std::to_string(K) + "] has a negative dimension";
  }
  if (n_groups < 0 || r < 1 || c < 1 || (n_groups > 0 && matrix.values == nullptr)) {
    return "values must have shape [n_groups, r, c] with r, c >= 1, got [" + std::to_string(n_groups) + ", " +
           std::to_string(r) + ", " + std::to_string(c) + "]";
  }
  const int64_t row_blocks = M / r + (M % r != 0);
  const int64_t column_groups = K / c + (K % c != 0);
  if (matrix.n_row_offsets - 1 != row_blocks || matrix.row_offsets == nullptr) {
    return "row_offsets must be int32 [" + std::to_string(row_blocks) + " + 1] for M=" + std::to_string(M) +
           " in groups of " + std::to_string(r) + " rows, got [" + std::to_string(matrix.n_row_offsets) + "]";
  }
  if (n_groups > 0 && (matrix.columns_u16 != nullptr) == (matrix.columns_i32 != nullptr)) {
    return "column_indices must be uint16 or int32 [" + std::to_string(n_groups) + "]";
  }
  const int64_t first = matrix.row_offsets[0], last = matrix.row_offsets[row_blocks];
  if (first != 0 || last != n_groups) {
    return "row_offsets must run from 0 to " + std::to_string(n_groups) + ", got " + std::to_string(first) + " to " +
           std::to_string(last);
  }
  for (int64_t block = 0; block < row_blocks; ++block) {
    if (matrix.row_offsets[block + 1] < matrix.row_offsets[block]) {
      return "row_offsets decrease after row block " + std::to_string(block);
    }
  }
  if (n_groups == 0) return {};
  return matrix.columns_u16 != nullptr ? validate_columns(matrix, matrix.columns_u16, row_blocks, column_groups)
                                       : validate_columns(matrix, matrix.columns_i32, row_blocks, column_groups);
}

}  // namespace scalpel
