#include "kernels/row_blocks.h"

#include <algorithm>

#include "kernels/scalar_matrix.h"
#include "kernels/widen.h"

namespace scalpel {

RowBlocks::RowBlocks(const GroupCsrView& matrix, int rows_) : M(matrix.M), r(matrix.r), rows(rows_) {
  const int64_t row_groups = matrix.n_row_offsets - 1, c = matrix.c;
  const WidenedValues values(matrix);
  begin.reserve(static_cast<size_t>(row_groups) + 1);
  begin.push_back(0);
  std::vector<const float*> steps;  // of one row group: the top weight of each, c floats from row to row
  for (int64_t group = 0; group < row_groups; ++group) {
    steps.clear();
    const int64_t valid_rows = std::min(r, M - group * r);
    for (int64_t i = matrix.row_offsets[group]; i < matrix.row_offsets[group + 1]; ++i) {
      const int64_t first = column_of(matrix, i) * c;
      for (int64_t j = 0; j < c && first + j < matrix.K; ++j) {
        const float* top = values.data() + i * r * c + j;
        bool zero = true;
        for (int64_t row = 0; row < valid_rows && zero; ++row) zero = top[row * c] == 0.0f;
        if (zero) continue;
        steps.push_back(top);
        columns.push_back(static_cast<uint32_t>(first + j));
      }
    }
    if (!steps.empty()) {
      for (int64_t block = 0; block < r; block += rows) {
        for (const float* top : steps) {
          for (int64_t row = block; row < block + rows; ++row) weights.push_back(top[row * c]);
        }
      }
    }
    begin.push_back(static_cast<int64_t>(columns.size()));
  }
}

int64_t RowBlocks::part_begin(size_t i, size_t parts) const {
  constexpr int64_t kStepsOfAnEpilogue = 4;
  const int64_t blocks_of_group = r / rows;
  const auto work_before = [&](int64_t block) {
    const auto group = static_cast<size_t>(block / blocks_of_group);
    const int64_t inside = block % blocks_of_group;
    const int64_t steps = inside == 0 ? 0 : inside * (begin[group + 1] - begin[group]);
    return begin[group] * blocks_of_group + steps + block * kStepsOfAnEpilogue;
  };
  const double wanted = static_cast<double>(work_before(blocks())) * static_cast<double>(i) / static_cast<double>(parts);
  int64_t low = 0, high = blocks();
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<double>(work_before(middle)) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace scalpel
