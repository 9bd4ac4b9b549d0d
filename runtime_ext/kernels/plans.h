// How each implementation makes its plans, from a matrix and a geometry that were already checked.
#pragma once

#include <memory>

#include "kernels/interface.h"

namespace scalpel {

std::unique_ptr<GemmPlan> make_scalar_gemm_plan(const GroupCsrView& matrix);
std::unique_ptr<ConvPlan> make_scalar_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry);

}  // namespace scalpel
