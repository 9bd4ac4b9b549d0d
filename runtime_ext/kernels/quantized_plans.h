// How each implementation makes its plans of quantized layers, from a matrix and a geometry that were already checked.
#pragma once

#include <memory>

#include "kernels/quantized.h"

namespace scalpel {

std::unique_ptr<QuantizedGemmPlan> make_scalar_quantized_gemm_plan(const GroupCsrView& matrix);
std::unique_ptr<QuantizedConvPlan> make_scalar_quantized_conv_plan(const GroupCsrView& matrix,
                                                                   const ConvGeometry& geometry);

}  // namespace scalpel
