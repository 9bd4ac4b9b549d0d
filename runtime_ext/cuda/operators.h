// The operators on ONNX Runtime's CUDA provider. Each throws Error if the node is unusable.
#pragma once

#include <memory>

#include "ort/node.h"
#include "ort/operator_call.h"

namespace scalpel {

inline constexpr const char* kCudaProvider = "CUDAExecutionProvider";

std::unique_ptr<Kernel> make_cuda_gemm(const Node& node);
std::unique_ptr<Kernel> make_cuda_conv(const Node& node);

// From host or device; waits for the copy.
void copy_to_host(void* to, const void* from, size_t bytes);

}  // namespace scalpel
