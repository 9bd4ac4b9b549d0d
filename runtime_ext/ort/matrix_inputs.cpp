#include "matrix_inputs.h"

#include <string>

namespace scalpel {
namespace {

bool find_value_type(OrtElementType type, ValueType* out) {
  switch (type) {
    case kOrtFloat:
      *out = ValueType::kFloat32;
      return true;
    case kOrtFloat16:
      *out = ValueType::kFloat16;
      return true;
    case kOrtBfloat16:
      *out = ValueType::kBfloat16;
      return true;
    default:
      return false;
  }
}

void read_values(const Node& node, size_t index, StoredValues stored, GroupCsrView* matrix) {
  const Tensor values = node.constant(index, "values");
  const bool is_int8 = stored != StoredValues::kFloat;
  const bool is_right = is_int8 ? values.type == kOrtInt8 : find_value_type(values.type, &matrix->value_type);
  if (!is_right || values.dims.size() != 3 || values.dims[1] < 1 || values.dims[2] < 1) {
    node.fail(std::string("values must be ") + (is_int8 ? "int8" : "float32, float16 or bfloat16") +
              " [n_groups, r, c] with r, c >= 1, got " + describe(values));
  }
  if (stored == StoredValues::kScaled) matrix->value_type = ValueType::kInt8;
  matrix->values = values.data;
  matrix->n_groups = values.dims[0];
  matrix->r = values.dims[1];
  matrix->c = values.dims[2];
}

}  // namespace

bool multiply(int64_t a, int64_t b, int64_t* product) { return !__builtin_mul_overflow(a, b, product); }

GroupCsrView read_matrix(const Node& node, const std::vector<int64_t>& weight_shape, size_t first, StoredValues stored) {
  GroupCsrView matrix;
  const std::string shape = "weight_shape " + to_string(weight_shape);
  if (weight_shape.size() < 2) node.fail(shape + " has fewer than two dimensions");
  matrix.M = weight_shape[0];
  matrix.K = 1;
  int64_t size = 0;
  for (size_t i = 0; i < weight_shape.size(); ++i) {
    if (weight_shape[i] < 1) node.fail(shape + " has a dimension below 1");
    if (i > 0 && !multiply(matrix.K, weight_shape[i], &matrix.K)) node.fail(shape + " is too large");
  }
  if (!multiply(matrix.M, matrix.K, &size)) node.fail(shape + " is too large");

  read_values(node, first, stored, &matrix);

  const Tensor row_offsets = node.constant(first + 1, "row_offsets");
  if (row_offsets.type != kOrtInt32 || row_offsets.dims.size() != 1) {
    node.fail("row_offsets must be int32 [ceil(M / r) + 1], got " + describe(row_offsets));
  }
  matrix.row_offsets = static_cast<const int32_t*>(row_offsets.data);
  matrix.n_row_offsets = row_offsets.dims[0];

  const Tensor columns = node.constant(first + 2, "column_indices");
  const bool known_type = columns.type == kOrtUint16 || columns.type == kOrtInt32;
  if (!known_type || columns.dims.size() != 1 || columns.dims[0] != matrix.n_groups) {
    node.fail("column_indices must be uint16 or int32 [" + std::to_string(matrix.n_groups) + "], got " +
              describe(columns));
  }
  if (columns.type == kOrtUint16) {
    matrix.columns_u16 = static_cast<const uint16_t*>(columns.data);
  } else {
    matrix.columns_i32 = static_cast<const int32_t*>(columns.data);
  }
  return matrix;
}

}  // namespace scalpel
