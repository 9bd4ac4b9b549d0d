// What the machine can do at most: multiply-adds, and moving memory. Called without Python's lock; throws
// std::bad_alloc.
#pragma once

#include <cstddef>

#include "kernels/kernel_set.h"
#include "kernels/quantized_kernels.h"

namespace scalpel {

// Floating-point operations per second of multiply-adds that touch no memory.
double peak_flops(const KernelSet& set, size_t threads, double seconds);

// Likewise of dot products of int8, two for each product.
double peak_int8_ops(const QuantizedKernels& kernels, size_t threads, double seconds);

// The least that `bandwidth` can go over.
size_t least_stream_bytes(const KernelSet& set);

// Bytes per second that each of the threads reads over and over from `bytes` of its own; with `copy`, half of them
// are read and the other half written. Which cache that measures is a matter of `bytes`.
double bandwidth(const KernelSet& set, size_t bytes, bool copy, size_t threads, double seconds);

// Bytes per second at which a core reads what another one has just written, `bytes` of it: the best of `rounds`.
double exchange_bandwidth(size_t writer_core, size_t reader_core, size_t bytes, size_t rounds);

}  // namespace scalpel
