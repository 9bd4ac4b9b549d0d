// QuantizedGemm, QuantizedConv and the output they write.
#pragma once

#include <pybind11/pybind11.h>

namespace scalpel {

void define_quantized(pybind11::module_& module);

}  // namespace scalpel
