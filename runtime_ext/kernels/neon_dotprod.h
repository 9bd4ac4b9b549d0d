#pragma once

#include "kernels/quantized_kernels.h"

namespace scalpel {

// Only for processors with dot products (ARMv8.2, or FEAT_DotProd).
const QuantizedKernels& neon_dotprod_kernels();

}  // namespace scalpel
