#pragma once

#include "kernels/kernel_set.h"

namespace scalpel {

// Only for a machine with AVX-512 F, BW, DQ and VL, AVX2 and FMA.
const KernelSet& avx512_kernels();

}  // namespace scalpel
