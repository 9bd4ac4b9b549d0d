#include "kernels/scalar_matrix.h"

#include "kernels/widen.h"

namespace scalpel {

ScalarMatrix::ScalarMatrix(const GroupCsrView& matrix)
    : M(matrix.M),
      K(matrix.K),
      r(matrix.r),
      c(matrix.c),
      row_offsets(matrix.row_offsets, matrix.row_offsets + matrix.n_row_offsets) {
  if (matrix.n_groups == 0) return;
  const WidenedValues widened(matrix);
  values.assign(widened.data(), widened.data() + matrix.n_groups * r * c);
  if (matrix.columns_u16 != nullptr) {
    columns.assign(matrix.columns_u16, matrix.columns_u16 + matrix.n_groups);
  } else {
    columns.assign(matrix.columns_i32, matrix.columns_i32 + matrix.n_groups);
  }
}

}  // namespace scalpel
