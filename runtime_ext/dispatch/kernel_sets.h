#pragma once

#include "kernels/int8.h"
#include "kernels/kernel_set.h"

namespace scalpel {

// The vector kernels of an instruction set, null for kScalar and for what this build does not have.
const KernelSet* kernel_set(Isa isa);

// The int8 kernels beside them, null where this machine has no dot products of int8.
const Int8Kernels* int8_kernels(Isa isa);

}  // namespace scalpel
