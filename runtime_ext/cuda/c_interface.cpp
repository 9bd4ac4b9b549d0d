// The kernels without ONNX Runtime, for tests, benchmarks and calibration: scalpel_graph/cuda.py calls this.
//
// What can fail gives null or -1 and leaves a sentence in scalpel_cuda_error(), of this thread.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <exception>
#include <string>
#include <variant>

#include "cuda/plan.h"

namespace {

thread_local std::string last_error;

using Plan = std::variant<scalpel::CudaGemm, scalpel::CudaConv>;

template <typename Result, typename Body>
Result guarded(Result failure, const Body& body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "unknown error";
  }
  return failure;
}

}  // namespace

#define SCALPEL_EXPORT extern "C" __attribute__((visibility("default")))

// The portable arrays on the host; see scalpel_graph/group_csr.py. value_type: 0 float32, 1 float16, 2 bfloat16.
struct ScalpelCudaMatrix {
  int64_t M, K, r, c, n_groups, n_row_offsets;
  const void* values;
  const int32_t* row_offsets;
  const uint16_t* columns_u16;  // one of the two is null
  const int32_t* columns_i32;
  const float* bias;  // [M] or null
  int32_t value_type;
  float min, max;
  int32_t gate;  // see kernels/activation.h
};

namespace {

scalpel::GroupCsrView view(const ScalpelCudaMatrix& matrix) {
  scalpel::GroupCsrView result;
  result.M = matrix.M;
  result.K = matrix.K;
  result.r = matrix.r;
  result.c = matrix.c;
  result.values = matrix.values;
  result.value_type = static_cast<scalpel::ValueType>(matrix.value_type);
  result.n_groups = matrix.n_groups;
  result.row_offsets = matrix.row_offsets;
  result.n_row_offsets = matrix.n_row_offsets;
  result.columns_u16 = matrix.columns_u16;
  result.columns_i32 = matrix.columns_i32;
  return result;
}

scalpel::CudaEpilogue epilogue(const ScalpelCudaMatrix& matrix) {
  return {matrix.bias, matrix.min, matrix.max, static_cast<scalpel::Gate>(matrix.gate)};
}

}  // namespace

SCALPEL_EXPORT const char* scalpel_cuda_error() { return last_error.c_str(); }

// Number of devices; -1 without a driver.
SCALPEL_EXPORT int scalpel_cuda_devices() {
  return guarded(-1, [] {
    int count = 0;
    scalpel::check_cuda(cudaGetDeviceCount(&count), "no CUDA device can be used");
    return count;
  });
}

SCALPEL_EXPORT void* scalpel_cuda_gemm(const ScalpelCudaMatrix* matrix) {
  return guarded<void*>(nullptr, [&] {
    return new Plan(std::in_place_type<scalpel::CudaGemm>, view(*matrix), epilogue(*matrix));
  });
}

// geometry: in_channels, group, then kernel [2], strides [2], dilations [2], pads [4] as top, left, bottom, right.
SCALPEL_EXPORT void* scalpel_cuda_conv(const ScalpelCudaMatrix* matrix, const int64_t* geometry) {
  return guarded<void*>(nullptr, [&] {
    const int64_t* g = geometry;
    const scalpel::ConvGeometry conv{g[0], g[1], {g[2], g[3]}, {g[4], g[5]}, {g[6], g[7]}, {g[8], g[9], g[10], g[11]}};
    return new Plan(std::in_place_type<scalpel::CudaConv>, view(*matrix), conv, epilogue(*matrix));
  });
}

SCALPEL_EXPORT void scalpel_cuda_destroy(void* plan) { delete static_cast<Plan*>(plan); }

// Device pointers; residual may be null.
SCALPEL_EXPORT int scalpel_cuda_run_gemm(const void* plan, const float* X, int64_t N, const float* residual, float* Y,
                                         void* stream) {
  return guarded(-1, [&] {
    std::get<scalpel::CudaGemm>(*static_cast<const Plan*>(plan))
        .run(X, N, residual, Y, static_cast<cudaStream_t>(stream));
    return 0;
  });
}

SCALPEL_EXPORT int scalpel_cuda_run_conv(const void* plan, const float* X, int64_t batch, int64_t in_h, int64_t in_w,
                                         const float* residual, float* Y, void* stream) {
  return guarded(-1, [&] {
    std::get<scalpel::CudaConv>(*static_cast<const Plan*>(plan))
        .run(X, batch, in_h, in_w, residual, Y, static_cast<cudaStream_t>(stream));
    return 0;
  });
}

SCALPEL_EXPORT void* scalpel_cuda_allocate(size_t bytes) {
  return guarded<void*>(nullptr, [&] {
    void* memory = nullptr;
    scalpel::check_cuda(cudaMalloc(&memory, bytes), "no device memory");
    return memory;
  });
}

SCALPEL_EXPORT void scalpel_cuda_free(void* memory) { cudaFree(memory); }

// From and to wherever; returns when it is done, and everything before it on the default stream.
SCALPEL_EXPORT int scalpel_cuda_copy(void* to, const void* from, size_t bytes) {
  return guarded(-1, [&] {
    scalpel::check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "the copy failed");
    return 0;
  });
}
