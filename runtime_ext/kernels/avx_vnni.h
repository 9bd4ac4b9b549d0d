#pragma once

#include "kernels/quantized_kernels.h"

namespace scalpel {

// Only for a machine with AVX2, FMA and AVX-VNNI.
const QuantizedKernels& avx_vnni_kernels();

}  // namespace scalpel
