// What a node of the model says about itself when its kernel is created.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "abi.h"

namespace scalpel {

struct Tensor {
  OrtElementType type = kOrtUndefined;
  std::vector<int64_t> dims;
  const void* data = nullptr;
};

// "[1, 3, 224, 224]"
std::string to_string(const int64_t* dims, size_t rank);
inline std::string to_string(const std::vector<int64_t>& dims) { return to_string(dims.data(), dims.size()); }

// "float32 [3, 4]"
std::string describe(const Tensor& tensor);

// Copies what a constant input holds, wherever ONNX Runtime keeps it; throws Error if that fails.
using CopyToHost = void (*)(void* to, const void* from, size_t bytes);

class Node {
 public:
  Node(const OrtApi& api, const OrtKernelInfo& info, const char* op_type, CopyToHost copy_to_host);

  const OrtApi& api() const { return api_; }
  // "GroupCsrGemm node 'fc1'", the beginning of every error message.
  const std::string& label() const { return label_; }
  [[noreturn]] void fail(const std::string& what) const;

  int64_t int_attribute(const char* name) const;
  float float_attribute(const char* name) const;
  std::vector<int64_t> ints_attribute(const char* name) const;

  // False if the input is computed while the model runs. What *out points at lives as long as the session.
  bool find_constant(size_t index, Tensor* out) const;
  // As above, but an input that is no constant is an error.
  Tensor constant(size_t index, const char* name) const;
  // Whether it is a scalar 0 of type float32, wherever it is kept.
  bool is_zero_scalar(const Tensor& tensor) const;

 private:
  const OrtApi& api_;
  const OrtKernelInfo& info_;
  std::string label_;
  CopyToHost copy_to_host_;
};

}  // namespace scalpel
