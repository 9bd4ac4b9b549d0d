#pragma once

#include "kernels/quantized_kernels.h"

namespace scalpel {

// Only for a machine with AVX2 and FMA.
const QuantizedKernels& avx2_quads_kernels();

}  // namespace scalpel
