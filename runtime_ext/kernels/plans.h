// How each implementation makes its plans, from a matrix and a geometry that were already checked.
#pragma once

#include <memory>

#include "kernels/interface.h"
#include "kernels/kernel_set.h"

namespace scalpel {

std::unique_ptr<GemmPlan> make_scalar_gemm_plan(const GroupCsrView& matrix);
std::unique_ptr<ConvPlan> make_scalar_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry);
std::unique_ptr<LrnPlan> make_scalar_lrn_plan(const LrnView& lrn);

// The widest matrix a vector plan can address: its offsets are 32 bits.
constexpr int64_t kMaxVectorK = int64_t{1} << 26;
// The tallest: it keeps a few numbers for every row, and a file can claim any number of rows that it stores nothing of.
constexpr int64_t kMaxVectorM = int64_t{1} << 24;

std::unique_ptr<GemmPlan> make_vector_gemm_plan(const GroupCsrView& matrix, const KernelSet& kernels);
// Null if it is no depthwise convolution that a kernel of the set is for.
std::unique_ptr<ConvPlan> make_depthwise_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                   const KernelSet& kernels);
std::unique_ptr<ConvPlan> make_vector_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                const KernelSet& kernels);
std::unique_ptr<LrnPlan> make_vector_lrn_plan(const LrnView& lrn, const KernelSet& kernels);

}  // namespace scalpel
