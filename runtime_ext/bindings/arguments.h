// What the classes of the module take from Python; what does not fit is a ValueError.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <string>
#include <vector>

#include "kernels/interface.h"

namespace scalpel {

namespace py = pybind11;

using Floats = py::array_t<float, py::array::c_style>;
using Int32s = py::array_t<int32_t, py::array::c_style>;
using Uint16s = py::array_t<uint16_t, py::array::c_style>;

// The arrays must outlive the view. A wrong dtype is an error, never a silent copy.
GroupCsrView view(const py::array& values, const py::array& row_offsets, const py::array& column_indices, int64_t M,
                  int64_t K);
// The same of int8 values.
GroupCsrView int8_view(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
                       int64_t M, int64_t K);
// Of int8 values that are multiples of `row_scale` [M].
GroupCsrView scaled_view(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
                         const Floats& row_scale, int64_t M, int64_t K);

// Of "" the one that operators use.
Isa isa_from_name(const std::string& name);

void require_shape(const py::array& array, const std::vector<py::ssize_t>& shape, const char* what);

ConvGeometry conv_geometry(const std::vector<int64_t>& weight_shape, const std::vector<int64_t>& strides,
                           const std::vector<int64_t>& dilations, const std::vector<int64_t>& pads, int64_t group);

}  // namespace scalpel
