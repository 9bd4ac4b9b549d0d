// The shape of X · Wᵀ over the last dimension of X.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/interface.h"
#include "operator_call.h"

namespace scalpel {

// *rows is the number of rows of X and of the product. Throws Error, which begins with the label, if X does not fit.
Shape product_shape(const Shape& x, const std::string& label, const GroupCsrView& matrix, int64_t* rows);

}  // namespace scalpel
