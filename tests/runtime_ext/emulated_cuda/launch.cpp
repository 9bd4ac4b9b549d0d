// The kernels of runtime_ext/cuda on the host, thread block by thread block and thread by thread, with the barriers
// and shuffles of the device: each phase is run by all threads before the next one begins.
#include "cuda/launch.h"

#include <limits>
#include <vector>

namespace scalpel {
namespace {

template <typename Kernel>
void run_gemm(const GemmArguments& a, int64_t thread_block) {
  struct Thread {
    typename Kernel::Sums sums;
  };
  std::vector<Thread> threads(kGemmThreads);
  // What no thread writes is no number.
  std::vector<float> totals(kGemmWarps * Kernel::kOutputs, std::numeric_limits<float>::quiet_NaN());
  for (int thread = 0; thread < kGemmThreads; ++thread) {
    Kernel::partial_sums(a, Kernel::place(a, thread_block, thread), threads[static_cast<size_t>(thread)].sums);
  }
  // A shuffle reads what the others had before it.
  for (int distance = kWarp / 2; distance >= Kernel::kAlike; distance /= 2) {
    const std::vector<Thread> before = threads;
    for (size_t thread = 0; thread < threads.size(); ++thread) {
      Kernel::add_from(threads[thread].sums, before[thread ^ static_cast<size_t>(distance)].sums);
    }
  }
  for (int thread = 0; thread < kGemmThreads; ++thread) {
    Kernel::publish(thread % kWarp, threads[static_cast<size_t>(thread)].sums,
                    totals.data() + thread / kWarp * Kernel::kOutputs);
  }
  for (int thread = 0; thread < kGemmThreads; ++thread) {
    Kernel::store(a, Kernel::place(a, thread_block, thread),
                  totals.data() + Kernel::first_warp(a, thread) * Kernel::kOutputs);
  }
}

}  // namespace

void launch_gemm(const PackedMatrix& matrix, const GemmArguments& arguments, cudaStream_t) {
  with_gemm_kernel(matrix, gemm_tile(matrix, arguments.N), [&](auto kernel) {
    for (int64_t block = 0; block < gemm_grid(arguments); ++block) run_gemm<decltype(kernel)>(arguments, block);
  });
}

void launch_conv(const PackedMatrix& matrix, const ConvArguments& arguments, cudaStream_t) {
  with_conv_kernel(matrix, [&](auto kernel) {
    for (int64_t block = 0; block < conv_grid(matrix, arguments); ++block) {
      for (int thread = 0; thread < kConvThreads; ++thread) decltype(kernel)::run(arguments, block, thread);
    }
  });
}

}  // namespace scalpel
