// Enqueues one kernel. The arguments are complete, and their thread blocks at most kMostThreadBlocks.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/conv_kernel.h"
#include "cuda/gemm_kernel.h"
#include "cuda/packed_matrix.h"

namespace scalpel {

void launch_gemm(const PackedMatrix& matrix, const GemmArguments& arguments, cudaStream_t stream);
void launch_conv(const PackedMatrix& matrix, const ConvArguments& arguments, cudaStream_t stream);

}  // namespace scalpel
