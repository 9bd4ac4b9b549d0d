// The portable arrays as they are in the file: what the scalar reference runs on, and every repacking reads.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.h"

namespace scalpel {

// Column, counted in groups, of group i.
inline int64_t column_of(const GroupCsrView& matrix, int64_t i) {
  return matrix.columns_u16 != nullptr ? int64_t{matrix.columns_u16[i]} : int64_t{matrix.columns_i32[i]};
}

struct ScalarMatrix {
  explicit ScalarMatrix(const GroupCsrView& matrix);  // a validated one

  int64_t M, K, r, c;
  std::vector<float> values;          // [n_groups, r, c]
  std::vector<int32_t> row_offsets;   // [ceil(M / r) + 1]
  std::vector<int32_t> columns;       // [n_groups]

  int64_t row_blocks() const { return static_cast<int64_t>(row_offsets.size()) - 1; }

  // Calls visit(k, w) for every stored weight w of row m, k < K, in order of k.
  template <typename Visit>
  void for_each_in_row(int64_t m, const Visit& visit) const {
    const auto block = static_cast<size_t>(m / r);
    for (auto g = row_offsets[block]; g < row_offsets[block + 1]; ++g) {
      const int64_t first = columns[static_cast<size_t>(g)] * c;
      const float* weights = values.data() + (g * r + m % r) * c;
      for (int64_t j = 0; j < c && first + j < K; ++j) visit(first + j, weights[j]);
    }
  }
};

}  // namespace scalpel
