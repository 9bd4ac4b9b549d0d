// The kernels of GroupCsrConv on the device.
#include "cuda/launch.h"

namespace scalpel {
namespace {

template <typename Kernel>
__global__ void __launch_bounds__(kConvThreads) run_conv(const ConvArguments arguments) {
  Kernel::run(arguments, blockIdx.x, static_cast<int>(threadIdx.x));
}

}  // namespace

void launch_conv(const PackedMatrix& matrix, const ConvArguments& arguments, cudaStream_t stream) {
  with_conv_kernel(matrix, [&](auto kernel) {
    const auto grid = static_cast<unsigned>(conv_grid(matrix, arguments));
    run_conv<decltype(kernel)><<<grid, kConvThreads, 0, stream>>>(arguments);
  });
}

}  // namespace scalpel
