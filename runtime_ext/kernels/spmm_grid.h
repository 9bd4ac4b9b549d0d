// How SpMM is cut into tasks: panels of pixels times parts of the row blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/parallel.h"
#include "kernels/row_blocks.h"

namespace scalpel {

struct SpmmGrid {
  static constexpr double kMultiplyAddsPerTask = 8e5;  // about 16 µs

  // `pixels` (columns of the activations) in `panels`, which read `activation_bytes` together.
  SpmmGrid(const RowBlocks& matrix, int64_t panels, double pixels, double activation_bytes) {
    const size_t wanted = task_count(matrix.multiply_adds() * pixels, kMultiplyAddsPerTask);
    const auto most_row_parts = static_cast<size_t>(std::max<int64_t>(matrix.blocks(), 1));
    const auto most_pixel_parts = static_cast<size_t>(std::max<int64_t>(panels, 1));
    // Each task reads its part of the weights and its part of the activations: take the cut that reads least.
    const double weight_bytes = matrix.multiply_adds() * sizeof(float);
    double least = 0;
    for (size_t rows = 1; rows <= std::min(wanted, most_row_parts); ++rows) {
      const size_t pixel_parts_wanted = (wanted + rows - 1) / rows;
      const size_t columns = std::min(pixel_parts_wanted, most_pixel_parts);
      const double missing = static_cast<double>(pixel_parts_wanted) / static_cast<double>(columns);
      const double bytes = (weight_bytes / static_cast<double>(rows) + activation_bytes / static_cast<double>(columns)) *
                           missing;
      if (rows == 1 || bytes < least) {
        least = bytes;
        row_parts = rows;
        pixel_parts = columns;
      }
    }
  }

  size_t row_parts = 1, pixel_parts = 1;

  size_t tasks() const { return row_parts * pixel_parts; }
};

}  // namespace scalpel
