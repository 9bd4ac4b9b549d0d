// How each implementation makes its plans of quantized layers, from a matrix and a geometry that were already checked.
#pragma once

#include <memory>

#include "kernels/quantized.h"
#include "kernels/quantized_kernels.h"

namespace scalpel {

std::unique_ptr<QuantizedGemmPlan> make_scalar_quantized_gemm_plan(const GroupCsrView& matrix);
std::unique_ptr<QuantizedConvPlan> make_scalar_quantized_conv_plan(const GroupCsrView& matrix,
                                                                   const ConvGeometry& geometry);
std::unique_ptr<QuantizedGemmPlan> make_vector_quantized_gemm_plan(const GroupCsrView& matrix,
                                                                   const QuantizedKernels& kernels);
std::unique_ptr<QuantizedConvPlan> make_vector_quantized_conv_plan(const GroupCsrView& matrix,
                                                                   const ConvGeometry& geometry,
                                                                   const QuantizedKernels& kernels);
// Null if a channel of the output reads more than one of the input.
std::unique_ptr<QuantizedConvPlan> make_quantized_depthwise_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                                 const QuantizedKernels& kernels);

}  // namespace scalpel
