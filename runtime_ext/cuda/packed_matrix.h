// A group-CSR matrix as the CUDA kernels read it: made once on the host, then uploaded.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.h"

namespace scalpel {

// Which operation a matrix is packed for.
enum class Operation { kGemm, kConv };

// Row blocks of `rows` rows, each a list of groups of rows × columns. One of the two is 1: groups of several rows are
// cut into single columns (what is all zero is then left out), and rows that no kernel has are cut into fewer.
struct PackedMatrix {
  int64_t M = 0;
  int64_t K = 0;
  int rows = 1;     // 1, 4, 8 or 16
  int columns = 1;  // 1, 4 or 8; 1 for kConv
  bool is_half = false;       // values are float16, else float32
  bool wide_columns = false;  // column_indices are uint32, else uint16
  std::vector<unsigned char> values;          // [n_groups, rows * columns]
  std::vector<unsigned char> column_indices;  // [n_groups], counted in groups
  // Row blocks with most groups come first: those that are computed together are then about as long.
  std::vector<int32_t> order;    // [row_blocks]: which one of the matrix it is
  std::vector<int32_t> offsets;  // [row_blocks + 1]: first group of each, in that order

  int64_t row_blocks() const { return static_cast<int64_t>(order.size()); }
  int64_t n_groups() const { return offsets.back(); }
};

// Of a validated matrix. bfloat16 is widened, which is exact. Throws std::length_error for more than 2^31 - 1 groups
// or row blocks.
PackedMatrix pack(const GroupCsrView& matrix, Operation operation);

}  // namespace scalpel
