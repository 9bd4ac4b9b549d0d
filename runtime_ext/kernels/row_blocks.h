// A matrix repacked for SpMM: row blocks of the kernel's height, each a sequence of steps (one input that feeds
// every row of the block).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.h"

namespace scalpel {

// A row group of the file (r rows) is cut into r / rows row blocks, which share their columns:
//   weights of row group g: [r / rows][steps of g][rows], from steps begin[g] * r on.
// A column of a group becomes a step unless all its r weights are zero.
struct RowBlocks {
  RowBlocks(const GroupCsrView& matrix, int rows);  // rows divides r

  int64_t M, r;
  int rows;
  std::vector<int64_t> begin;     // [row groups + 1], first step
  std::vector<uint32_t> columns;  // [steps], k of W[m, k]
  std::vector<float> weights;     // [steps, r] as above

  int64_t blocks() const { return M / rows + (M % rows != 0); }
  double multiply_adds() const { return static_cast<double>(weights.size()); }

  // The first block of part `i` when the blocks are cut into `parts` of about equal work.
  int64_t part_begin(size_t i, size_t parts) const;
};

}  // namespace scalpel
