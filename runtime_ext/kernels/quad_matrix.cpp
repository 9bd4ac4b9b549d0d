#include "kernels/quad_matrix.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "kernels/scalar_matrix.h"

namespace scalpel {

QuadMatrix::QuadMatrix(const GroupCsrView& matrix)
    : M(matrix.M), K(matrix.K), r(matrix.r), height(std::gcd(matrix.r, kMostHeight)),
      row_sums(static_cast<size_t>(matrix.M)), row_norms(static_cast<size_t>(matrix.M)) {
  const auto* values = static_cast<const int8_t*>(matrix.values);
  const int64_t c = matrix.c, row_groups = matrix.n_row_offsets - 1;
  begin.reserve(static_cast<size_t>(row_groups) + 1);
  begin.push_back(0);
  std::vector<const int8_t*> tops;  // of one row group: the top weight of each column, c weights from row to row
  for (int64_t group = 0; group < row_groups; ++group) {
    tops.clear();
    const int64_t valid_rows = std::min(r, M - group * r);
    for (int64_t i = matrix.row_offsets[group]; i < matrix.row_offsets[group + 1]; ++i) {
      const int64_t first = column_of(matrix, i) * c;
      for (int64_t j = 0; j < c && first + j < K; ++j) {
        const int8_t* top = values + i * r * c + j;
        bool zero = true;
        for (int64_t row = 0; row < valid_rows && zero; ++row) zero = top[row * c] == 0;
        if (zero) continue;
        tops.push_back(top);
        columns.push_back(static_cast<uint32_t>(first + j));
        for (int64_t row = 0; row < valid_rows; ++row) {
          row_sums[static_cast<size_t>(group * r + row)] += top[row * c];
          row_norms[static_cast<size_t>(group * r + row)] += std::abs(int32_t{top[row * c]});
        }
      }
    }
    while (tops.size() % kQuad != 0) {
      tops.push_back(nullptr);
      columns.push_back(columns.back());
    }
    for (int64_t block = 0; block < r; block += height) {
      for (size_t step = 0; step < tops.size(); step += kQuad) {
        for (int64_t row = block; row < block + height; ++row) {
          for (size_t i = step; i < step + kQuad; ++i) {
            const bool is_there = tops[i] != nullptr && row < valid_rows;
            weights.push_back(is_there ? tops[i][row * c] : int8_t{0});
          }
        }
      }
    }
    begin.push_back(static_cast<int64_t>(columns.size()) / kQuad);
  }
}

int64_t QuadMatrix::part_begin(int64_t first, int64_t last, size_t i, size_t parts) const {
  constexpr int64_t kStepsOfAnEpilogue = 2;
  const int64_t blocks_of_group = r / height;
  const auto work_before = [&](int64_t block) {
    const auto group = static_cast<size_t>(block / blocks_of_group);
    const int64_t inside = block % blocks_of_group;
    const int64_t steps = inside == 0 ? 0 : inside * (begin[group + 1] - begin[group]);
    return begin[group] * blocks_of_group + steps + block * kStepsOfAnEpilogue;
  };
  const auto start = static_cast<double>(work_before(first)), end = static_cast<double>(work_before(last));
  const double wanted = start + (end - start) * static_cast<double>(i) / static_cast<double>(parts);
  int64_t low = first, high = last;
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
