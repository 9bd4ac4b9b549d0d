#include <stdexcept>
#include <string>

#include "cuda/launch.h"
#include "cuda/launch_arguments.h"
#include "cuda/plan.h"

namespace scalpel {
namespace {

PackedMatrix packed_if_valid(const GroupCsrView& matrix) {
  std::string problem = validate(matrix);
  if (problem.empty()) problem = check_addressable(matrix, nullptr);
  if (!problem.empty()) throw std::runtime_error(problem);
  return pack(matrix, Operation::kGemm);
}

}  // namespace

CudaGemm::CudaGemm(const GroupCsrView& matrix, const CudaEpilogue& epilogue)
    : matrix_(packed_if_valid(matrix)),
      bias_(epilogue.bias, static_cast<size_t>(matrix.M) * sizeof(float)),
      min_(epilogue.min),
      max_(epilogue.max),
      gate_(epilogue.gate),
      team_(gemm_team(matrix_.packed())) {}

void CudaGemm::run(const float* X, int64_t N, const float* residual, float* Y, cudaStream_t stream) const {
  const PackedMatrix& packed = matrix_.packed();
  if (N == 0 || packed.M == 0) return;
  GemmArguments arguments = gemm_arguments(packed, team_, X, N, residual, Y);
  matrix_.fill(&arguments);
  arguments.bias = static_cast<const float*>(bias_.get());
  arguments.min = min_;
  arguments.max = max_;
  arguments.gate = gate_;
  if (gemm_grid(arguments) > kMostThreadBlocks) throw std::runtime_error("X has too many rows for the CUDA kernels");
  launch_gemm(packed, arguments, stream);
  check_cuda(cudaGetLastError(), "GroupCsrGemm cannot be launched");
}

}  // namespace scalpel
