#pragma once

#include "kernels/kernel_set.h"

namespace scalpel {

// Only for AArch64, all of whose processors have NEON.
const KernelSet& neon_kernels();

}  // namespace scalpel
