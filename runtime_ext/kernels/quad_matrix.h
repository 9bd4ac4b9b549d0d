// A matrix of int8 repacked for instructions that add four products to a sum: the columns of a row group are taken
// four at a time, whichever they are, and each such quad is a step that multiplies four inputs by four weights of
// every row.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.h"

namespace scalpel {

// A row group of the file (r rows) is cut into row blocks of `height` rows, which share their columns:
//   weights of row group g: [r / height][steps of g][height][4], from begin[g] * r * 4 on.
// A column of a group is left out if all its r weights are zero. The last step of a row group is filled up with
// weights of zero for a column that is there.
struct QuadMatrix {
  explicit QuadMatrix(const GroupCsrView& matrix);

  int64_t M, K, r;
  int64_t height;                  // the largest power of two up to kMostHeight that divides r
  std::vector<int64_t> begin;      // [row groups + 1], first step
  std::vector<uint32_t> columns;   // [steps, 4]
  std::vector<int8_t> weights;     // as above
  std::vector<int32_t> row_sums;   // [M], of the weights
  std::vector<int64_t> row_norms;  // [M], of their magnitudes

  static constexpr int64_t kQuad = 4, kMostHeight = 16;

  int64_t groups() const { return static_cast<int64_t>(begin.size()) - 1; }
  int64_t blocks() const { return M / height + (M % height != 0); }
  double multiply_adds() const { return static_cast<double>(weights.size()); }

  // The first block of part `i` when blocks [first, last) are cut into `parts` of about equal work.
  int64_t part_begin(int64_t first, int64_t last, size_t i, size_t parts) const;
};

}  // namespace scalpel
