#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "cuda/launch_arguments.h"
#include "cuda/plan.h"

namespace scalpel {
namespace {

PackedMatrix packed_if_valid(const GroupCsrView& matrix, const ConvGeometry& geometry) {
  std::string problem = validate(matrix);
  if (problem.empty()) problem = check_geometry(matrix, geometry);
  if (problem.empty()) problem = check_addressable(matrix, &geometry);
  if (!problem.empty()) throw std::runtime_error(problem);
  return pack(matrix, Operation::kConv);
}

DeviceArray uploaded_taps(const ConvGeometry& geometry, int64_t K) {
  const std::vector<Tap> taps = conv_taps(geometry, K);
  return DeviceArray(taps.data(), taps.size() * sizeof(Tap));
}

}  // namespace

CudaConv::CudaConv(const GroupCsrView& matrix, const ConvGeometry& geometry, const CudaEpilogue& epilogue)
    : geometry_(geometry),
      matrix_(packed_if_valid(matrix, geometry)),
      taps_(uploaded_taps(geometry, matrix.K)),
      bias_(epilogue.bias, static_cast<size_t>(matrix.M) * sizeof(float)),
      min_(epilogue.min),
      max_(epilogue.max),
      gate_(epilogue.gate) {}

bool CudaConv::output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const {
  return scalpel::output_size(geometry_, in_h, in_w, out_h, out_w);
}

void CudaConv::run(const float* X, int64_t batch, int64_t in_h, int64_t in_w, const float* residual, float* Y,
                   cudaStream_t stream) const {
  const PackedMatrix& packed = matrix_.packed();
  int64_t out_h, out_w;
  if (batch == 0 || packed.M == 0 || !output_size(in_h, in_w, &out_h, &out_w)) return;
  ConvArguments arguments = conv_arguments(packed, geometry_, X, batch, in_h, in_w, residual, Y);
  matrix_.fill(&arguments);
  arguments.taps = static_cast<const Tap*>(taps_.get());
  arguments.bias = static_cast<const float*>(bias_.get());
  arguments.min = min_;
  arguments.max = max_;
  arguments.gate = gate_;
  if (conv_grid(packed, arguments) > kMostThreadBlocks) throw std::runtime_error("X has too many pixels for the CUDA kernels");
  launch_conv(packed, arguments, stream);
  check_cuda(cudaGetLastError(), "GroupCsrConv cannot be launched");
}

}  // namespace scalpel
