#pragma once

#include "kernels/quantized_kernels.h"

namespace scalpel {

// Of the instructions that every AArch64 processor has.
const QuantizedKernels& neon_quads_kernels();

}  // namespace scalpel
