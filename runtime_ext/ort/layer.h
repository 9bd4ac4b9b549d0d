// What GroupCsrGemm, GroupCsrConv and GroupCsrScaledGemm have in common: the constant inputs and attributes that are
// read when the kernel is created, and what each call needs from ONNX Runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "abi.h"
#include "kernels/interface.h"
#include "matrix_inputs.h"
#include "node.h"
#include "operator_call.h"
#include "workspace.h"

namespace scalpel {

// Input positions of all of them, the last one of GroupCsrScaledGemm alone; see scalpel_graph/ops.py.
enum Input : size_t { kX, kValues, kRowOffsets, kColumnIndices, kBias, kResidual, kWScale };

// The parts of a layer that do not depend on the operator.
class Layer {
 public:
  Layer(const Node& node, StoredValues stored);
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  const std::vector<int64_t>& weight_shape() const { return weight_shape_; }
  // See read_matrix().
  const GroupCsrView& matrix() const { return matrix_; }
  // What every call adds and applies: all but the residual.
  const Epilogue& epilogue() const { return epilogue_; }
  const std::string& label() const { return label_; }
  [[noreturn]] void fail(const std::string& what) const;

  // One call of the operator.
  class Call : public OperatorCall {
   public:
    Call(const Layer& layer, OrtKernelContext& context);

    const float* x() const { return x_; }
    const Shape& x_shape() const { return x_shape_; }
    // Bias, activation, and the residual, which must have the shape of the output.
    Epilogue epilogue(const Shape& output) const;
    // 64-byte aligned, or null for 0 bytes; freed with the call.
    void* workspace(size_t bytes) { return workspace_.get(bytes, layer_.label_); }
    using OperatorCall::context;

   private:
    const Layer& layer_;
    const float* x_ = nullptr;
    Shape x_shape_;
    Workspace workspace_;
  };

 private:
  void read_scales(const Node& node);
  void read_bias(const Node& node);
  void read_residual(const Node& node);
  void read_activation(const Node& node);

  const OrtApi& api_;
  std::string label_;
  std::vector<int64_t> weight_shape_;
  GroupCsrView matrix_;
  std::vector<float> row_scale_;
  std::vector<float> bias_;
  bool has_residual_ = true;
  Epilogue epilogue_;  // without the residual
  CpuMemory cpu_memory_;
};

}  // namespace scalpel
