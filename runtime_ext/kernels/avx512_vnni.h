#pragma once

#include "kernels/quantized_kernels.h"

namespace scalpel {

// Only for a machine with AVX-512 F, BW, DQ, VL and VNNI, and BMI2.
const QuantizedKernels& avx512_vnni_kernels();

}  // namespace scalpel
