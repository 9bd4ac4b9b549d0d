#include "product_shape.h"

#include "error.h"
#include "node.h"

namespace scalpel {

Shape product_shape(const Shape& x, const std::string& label, const GroupCsrView& matrix, int64_t* rows) {
  if (x.rank == 0 || x.dims[x.rank - 1] != matrix.K) {
    throw Error(label + ": X " + to_string(x.dims, x.rank) + " must have the shape [..., " + std::to_string(matrix.K) +
                "]");
  }
  Shape shape = x;
  shape.dims[shape.rank - 1] = matrix.M;
  *rows = 1;  // does not overflow: the input is in memory
  for (size_t i = 0; i + 1 < x.rank; ++i) *rows *= x.dims[i];
  return shape;
}

}  // namespace scalpel
