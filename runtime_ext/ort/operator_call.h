// What every operator's kernel needs from ONNX Runtime while it runs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "abi.h"
#include "kernels/interface.h"

namespace scalpel {

// Enough for every tensor a framework can make (NumPy stops at 64), so that a call allocates nothing for shapes.
inline constexpr size_t kMaxRank = 64;

struct Shape {
  int64_t dims[kMaxRank];
  size_t rank = 0;

  bool is_empty() const { return std::find(dims, dims + rank, 0) != dims + rank; }
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(OrtKernelContext& context) const = 0;
  const OrtApi& api() const { return api_; }

 protected:
  explicit Kernel(const OrtApi& api) : api_(api) {}

 private:
  const OrtApi& api_;
};

class OperatorCall {
 public:
  // `label` begins every error message and must outlive the call.
  OperatorCall(const OrtApi& api, const std::string& label, OrtKernelContext& context)
      : api_(api), label_(label), context_(context) {}
  OperatorCall(const OperatorCall&) = delete;
  OperatorCall& operator=(const OperatorCall&) = delete;
  ~OperatorCall();

  template <typename Element = float>
  const Element* input(size_t index, Shape* shape) const {
    return static_cast<const Element*>(input_data(index, shape));
  }
  template <typename Element = float>
  Element* output(const Shape& shape) {
    return static_cast<Element*>(output_data(shape));
  }
  Parallel threads();
  // Throws what ONNX Runtime's threads reported while the kernel ran.
  void finish();

 protected:
  const OrtApi& api() const { return api_; }
  OrtKernelContext& context() const { return context_; }

 private:
  const void* input_data(size_t index, Shape* shape) const;
  void* output_data(const Shape& shape);
  static void run(void* self, void (*body)(void* user, size_t i), size_t count, void* user);

  const OrtApi& api_;
  const std::string& label_;
  OrtKernelContext& context_;
  OrtStatus* failure_ = nullptr;
};

}  // namespace scalpel
