// The kernels of GroupCsrGemm on the device.
#include "cuda/launch.h"

namespace scalpel {
namespace {

template <typename Kernel>
__global__ void __launch_bounds__(kGemmThreads) run_gemm(const GemmArguments arguments) {
  __shared__ float totals[kGemmWarps * Kernel::kOutputs];
  const int thread = static_cast<int>(threadIdx.x);
  const GemmPlace place = Kernel::place(arguments, blockIdx.x, thread);
  typename Kernel::Sums sums;
  Kernel::partial_sums(arguments, place, sums);
#pragma unroll
  for (int distance = kWarp / 2; distance >= Kernel::kAlike; distance /= 2) {
    typename Kernel::Sums other;
#pragma unroll
    for (int t = 0; t < Kernel::kRowsOfX; ++t) {
#pragma unroll
      for (int i = 0; i < Kernel::kSums; ++i) other[t][i] = __shfl_xor_sync(0xffffffffu, sums[t][i], distance);
    }
    Kernel::add_from(sums, other);
  }
  Kernel::publish(thread % kWarp, sums, totals + thread / kWarp * Kernel::kOutputs);
  __syncthreads();
  Kernel::store(arguments, place, totals + Kernel::first_warp(arguments, thread) * Kernel::kOutputs);
}

}  // namespace

void launch_gemm(const PackedMatrix& matrix, const GemmArguments& arguments, cudaStream_t stream) {
  with_gemm_kernel(matrix, gemm_tile(matrix, arguments.N), [&](auto kernel) {
    const auto grid = static_cast<unsigned>(gemm_grid(arguments));
    run_gemm<decltype(kernel)><<<grid, kGemmThreads, 0, stream>>>(arguments);
  });
}

}  // namespace scalpel
