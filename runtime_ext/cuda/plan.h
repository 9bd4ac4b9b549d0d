// The CUDA kernels as the operators and the C interface use them.
//
// A plan packs and uploads its matrix when it is made, on the device that is current then, and is immutable: any
// number of streams of that device may run it at the same time. `run` enqueues one kernel on a stream. It neither
// allocates nor synchronises, so it can be captured in a CUDA graph. Nothing here is checked but what is said: errors
// are std::runtime_error or what the standard library throws.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <limits>

#include "cuda/device_matrix.h"
#include "cuda/gemm_kernel.h"
#include "kernels/interface.h"

namespace scalpel {

// What is added and applied to the product, with the bias on the host.
struct CudaEpilogue {
  const float* bias = nullptr;  // [M] or null, copied
  float min = -std::numeric_limits<float>::infinity();
  float max = std::numeric_limits<float>::infinity();
  Gate gate = Gate::kNone;
};

class CudaGemm {
 public:
  // Throws std::runtime_error with the sentence of validate() if the matrix is inconsistent.
  CudaGemm(const GroupCsrView& matrix, const CudaEpilogue& epilogue);

  // Device pointers: X [N, K], residual and Y [N, M]; the residual may be null.
  void run(const float* X, int64_t N, const float* residual, float* Y, cudaStream_t stream) const;

  int64_t M() const { return matrix_.packed().M; }

 private:
  DeviceMatrix matrix_;
  DeviceArray bias_;
  float min_, max_;
  Gate gate_;
  int team_;
};

class CudaConv {
 public:
  // Throws std::runtime_error if the matrix is inconsistent or contradicts the geometry.
  CudaConv(const GroupCsrView& matrix, const ConvGeometry& geometry, const CudaEpilogue& epilogue);

  // False if the padded input is smaller than the kernel.
  bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const;
  // Device pointers: X [batch, C, in_h, in_w], residual and Y [batch, M, out_h, out_w]; the residual may be null.
  void run(const float* X, int64_t batch, int64_t in_h, int64_t in_w, const float* residual, float* Y,
           cudaStream_t stream) const;

  int64_t M() const { return matrix_.packed().M; }
  const ConvGeometry& geometry() const { return geometry_; }

 private:
  ConvGeometry geometry_;
  DeviceMatrix matrix_;
  DeviceArray taps_;
  DeviceArray bias_;
  float min_, max_;
  Gate gate_;
};

}  // namespace scalpel
