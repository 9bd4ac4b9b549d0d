// What GroupCsrGemm and GroupCsrConv have in common: the constant inputs and attributes that are read when the
// kernel is created, and what each call needs from ONNX Runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "abi.h"
#include "kernels/interface.h"
#include "node.h"

namespace scalpel {

// Input and output positions of both operators; see scalpel_graph/ops.py.
enum Input : size_t { kX, kValues, kRowOffsets, kColumnIndices, kBias, kResidual, kInputCount };
inline constexpr size_t kOutputCount = 1;

// Enough for every tensor a framework can make (NumPy stops at 64), so that a call allocates nothing for shapes.
inline constexpr size_t kMaxRank = 64;

struct Shape {
  int64_t dims[kMaxRank];
  size_t rank = 0;
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

// The parts of a layer that do not depend on the operator.
class Layer {
 public:
  explicit Layer(const Node& node);
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;
  ~Layer();

  const std::vector<int64_t>& weight_shape() const { return weight_shape_; }
  // The arrays are ONNX Runtime's and are checked for types and shapes; what they hold is checked by the plan.
  const GroupCsrView& matrix() const { return matrix_; }
  [[noreturn]] void fail(const std::string& what) const;

  // One call of the operator.
  class Call {
   public:
    Call(const Layer& layer, OrtKernelContext& context);
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call();

    const float* x() const { return x_; }
    const Shape& x_shape() const { return x_shape_; }
    float* output(const Shape& shape);
    // Bias, activation, and the residual, which must have the shape of the output.
    Epilogue epilogue(const Shape& output) const;
    // 64-byte aligned, or null for 0 bytes; freed with the call.
    void* workspace(size_t bytes);
    Parallel threads();
    // Throws what ONNX Runtime's threads reported while the kernel ran.
    void finish();

   private:
    const float* input(size_t index, Shape* shape) const;
    static void run(void* self, void (*body)(void* user, size_t i), size_t count, void* user);

    const Layer& layer_;
    const OrtApi& api_;
    OrtKernelContext& context_;
    const float* x_ = nullptr;
    Shape x_shape_;
    OrtAllocator* allocator_ = nullptr;
    void* memory_ = nullptr;
    OrtStatus* failure_ = nullptr;
  };

 private:
  void read_matrix(const Node& node);
  void read_bias(const Node& node);
  void read_residual(const Node& node);
  void read_activation(const Node& node);

  const OrtApi& api_;
  std::string label_;
  std::vector<int64_t> weight_shape_;
  GroupCsrView matrix_;
  std::vector<float> bias_;
  bool has_residual_ = true;
  Epilogue epilogue_;  // without the residual
  OrtMemoryInfo* cpu_memory_ = nullptr;
};

// Result of a·b, or false if it does not fit.
bool multiply(int64_t a, int64_t b, int64_t* product);

}  // namespace scalpel
