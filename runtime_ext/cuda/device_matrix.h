// Arrays on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/packed_matrix.h"

namespace scalpel {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that nobody else is told of it
  throw std::runtime_error(std::string(what) + ": CUDA says: " + cudaGetErrorString(error));
}

// A copy of an array of the host; null for none.
class DeviceArray {
 public:
  DeviceArray(const void* data, size_t bytes) {
    if (data == nullptr || bytes == 0) return;
    check_cuda(cudaMalloc(&data_, bytes), "no device memory for the weights");
    cudaError_t error = cudaMemcpy(data_, data, bytes, cudaMemcpyHostToDevice);
    // The copy may only be on its way when that returns, and streams like ONNX Runtime's do not wait for it.
    if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
    if (error != cudaSuccess) cudaFree(data_);
    check_cuda(error, "the weights cannot be copied to the device");
  }
  DeviceArray(DeviceArray&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() { cudaFree(data_); }  // an error means that the driver is gone, and its memory with it

  const void* get() const { return data_; }

 private:
  void* data_ = nullptr;
};

class DeviceMatrix {
 public:
  explicit DeviceMatrix(PackedMatrix packed)
      : packed_(std::move(packed)),
        values_(packed_.values.data(), packed_.values.size()),
        columns_(packed_.column_indices.data(), packed_.column_indices.size()),
        order_(packed_.order.data(), packed_.order.size() * sizeof(int32_t)),
        offsets_(packed_.offsets.data(), packed_.offsets.size() * sizeof(int32_t)) {
    packed_.values = {};
    packed_.column_indices = {};
  }

  // Without its values and columns, which are on the device alone.
  const PackedMatrix& packed() const { return packed_; }

  template <typename Arguments>
  void fill(Arguments* arguments) const {
    arguments->values = values_.get();
    arguments->columns = columns_.get();
    arguments->order = static_cast<const int32_t*>(order_.get());
    arguments->offsets = static_cast<const int32_t*>(offsets_.get());
  }

 private:
  PackedMatrix packed_;
  DeviceArray values_, columns_, order_, offsets_;
};

}  // namespace scalpel
