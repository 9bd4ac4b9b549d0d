#pragma once

#include "kernels/kernel_set.h"

namespace scalpel {

// The vector kernels of an instruction set, null for kScalar and for what this build does not have.
const KernelSet* kernel_set(Isa isa);

}  // namespace scalpel
