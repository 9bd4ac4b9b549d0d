#pragma once

#include "kernels/int8.h"

namespace scalpel {

// Only for processors with dot products (ARMv8.2, or FEAT_DotProd).
const Int8Kernels& neon_dotprod_kernels();

}  // namespace scalpel
