#pragma once

#include "kernels/kernel_set.h"
#include "kernels/quantized_kernels.h"

namespace scalpel {

// The vector kernels of an instruction set, null for kScalar and for what this build does not have.
const KernelSet* kernel_set(Isa isa);

// The kernels of quantized layers that this machine can run, best last.
std::vector<const QuantizedKernels*> available_quantized_kernels();
// The best of them that need no better instruction set than `isa`; null where the scalar reference must do.
const QuantizedKernels* quantized_kernels(Isa isa);

// make_quantized_gemm_plan and make_quantized_conv_plan with kernels of choice; null: the scalar reference.
std::unique_ptr<QuantizedGemmPlan> make_quantized_gemm_plan(const GroupCsrView& matrix, const QuantizedKernels* kernels,
                                                            std::string* error);
std::unique_ptr<QuantizedConvPlan> make_quantized_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                            const QuantizedKernels* kernels, std::string* error);

}  // namespace scalpel
