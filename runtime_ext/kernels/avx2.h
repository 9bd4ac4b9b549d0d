#pragma once

#include "kernels/kernel_set.h"

namespace scalpel {

// Only for a machine with AVX2 and FMA.
const KernelSet& avx2_kernels();

}  // namespace scalpel
