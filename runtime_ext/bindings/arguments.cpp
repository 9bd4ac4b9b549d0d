#include "bindings/arguments.h"

namespace scalpel {
namespace {

// Of an array of this dtype; bfloat16 is ml_dtypes', which numpy knows by name alone.
bool find_value_type(const py::dtype& dtype, ValueType* type) {
  const auto name = dtype.attr("name").cast<std::string>();
  if (name == "float32") {
    *type = ValueType::kFloat32;
  } else if (name == "float16") {
    *type = ValueType::kFloat16;
  } else if (name == "bfloat16") {
    *type = ValueType::kBfloat16;
  } else {
    return false;
  }
  return true;
}

// All but the type of the values.
GroupCsrView untyped_view(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
                          int64_t M, int64_t K) {
  GroupCsrView matrix;
  if (!py::isinstance<Int32s>(row_offsets) || row_offsets.ndim() != 1) {
    throw py::value_error("row_offsets must be a contiguous int32 vector");
  }
  const bool narrow = py::isinstance<Uint16s>(column_indices);
  if ((!narrow && !py::isinstance<Int32s>(column_indices)) || column_indices.ndim() != 1 ||
      column_indices.shape(0) != values.shape(0)) {
    throw py::value_error("column_indices must be a contiguous uint16 or int32 vector [n_groups]");
  }
  matrix.M = M;
  matrix.K = K;
  matrix.r = values.shape(1);
  matrix.c = values.shape(2);
  matrix.n_groups = values.shape(0);
  matrix.values = values.data();
  matrix.row_offsets = static_cast<const int32_t*>(row_offsets.data());
  matrix.n_row_offsets = row_offsets.shape(0);
  if (narrow) {
    matrix.columns_u16 = static_cast<const uint16_t*>(column_indices.data());
  } else {
    matrix.columns_i32 = static_cast<const int32_t*>(column_indices.data());
  }
  return matrix;
}

std::array<int64_t, 2> as_2d(const std::vector<int64_t>& values, int64_t height, const char* what) {
  if (values.size() == 1) return {height, values[0]};
  if (values.size() == 2) return {values[0], values[1]};
  throw py::value_error(std::string(what) + " must have one or two spatial dimensions");
}

}  // namespace

GroupCsrView scaled_view(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
                         const Floats& row_scale, int64_t M, int64_t K) {
  GroupCsrView matrix = int8_view(values, row_offsets, column_indices, M, K);
  require_shape(row_scale, {M}, "row_scale");
  matrix.value_type = ValueType::kInt8;
  matrix.row_scale = row_scale.data();
  return matrix;
}

GroupCsrView view(const py::array& values, const py::array& row_offsets, const py::array& column_indices, int64_t M,
                  int64_t K) {
  ValueType type;
  const bool is_contiguous = (values.flags() & py::array::c_style) != 0;
  if (!find_value_type(values.dtype(), &type) || !is_contiguous || values.ndim() != 3) {
    throw py::value_error("values must be a contiguous float32, float16 or bfloat16 array [n_groups, r, c]");
  }
  GroupCsrView matrix = untyped_view(values, row_offsets, column_indices, M, K);
  matrix.value_type = type;
  return matrix;
}

GroupCsrView int8_view(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
                       int64_t M, int64_t K) {
  if (!py::isinstance<py::array_t<int8_t, py::array::c_style>>(values) || values.ndim() != 3) {
    throw py::value_error("values must be a contiguous int8 array [n_groups, r, c]");
  }
  return untyped_view(values, row_offsets, column_indices, M, K);
}

Isa isa_from_name(const std::string& name) {
  if (name.empty()) {
    Isa isa;
    std::string error;
    if (!choose_isa(&isa, &error)) throw py::value_error(error);
    return isa;
  }
  for (Isa isa : available_isas()) {
    if (name == isa_name(isa)) return isa;
  }
  throw py::value_error("no such instruction set on this machine: " + name);
}

void require_shape(const py::array& array, const std::vector<py::ssize_t>& shape, const char* what) {
  if (std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()) != shape) {
    throw py::value_error(std::string(what) + " has the wrong shape");
  }
}

ConvGeometry conv_geometry(const std::vector<int64_t>& weight_shape, const std::vector<int64_t>& strides,
                           const std::vector<int64_t>& dilations, const std::vector<int64_t>& pads, int64_t group) {
  if (weight_shape.size() < 3) throw py::value_error("weight_shape must be [M, C / group, kernel...]");
  const size_t spatial = weight_shape.size() - 2;
  const auto kernel = as_2d({weight_shape.begin() + 2, weight_shape.end()}, 1, "the kernel");
  const auto stride = as_2d(strides, 1, "strides"), dilation = as_2d(dilations, 1, "dilations");
  if (pads.size() != 2 * spatial) throw py::value_error("pads must have a begin and an end for each dimension");
  const auto begins = as_2d({pads.begin(), pads.begin() + static_cast<ptrdiff_t>(spatial)}, 0, "pads");
  const auto ends = as_2d({pads.begin() + static_cast<ptrdiff_t>(spatial), pads.end()}, 0, "pads");
  return {weight_shape[1] * group,
          group,
          {kernel[0], kernel[1]},
          {stride[0], stride[1]},
          {dilation[0], dilation[1]},
          {begins[0], begins[1], ends[0], ends[1]}};
}

}  // namespace scalpel
