// The arithmetic of a convolution's shape, shared by every ConvPlan.
#pragma once

#include <string>

#include "kernels/interface.h"

namespace scalpel {

// Empty if the geometry is possible and fits the matrix, else a sentence that says what is wrong. What passes
// cannot overflow int64 in the functions below.
std::string check_geometry(const GroupCsrView& matrix, const ConvGeometry& geometry);

// Output size along one axis (0: height, 1: width), 0 if the padded input is smaller than the kernel.
int64_t output_extent(const ConvGeometry& geometry, int axis, int64_t input_extent);

bool output_size(const ConvGeometry& geometry, int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w);

}  // namespace scalpel
