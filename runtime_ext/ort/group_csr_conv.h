// GroupCsrConv but for what computes it.
#pragma once

#include <cstdint>
#include <vector>

#include "layer.h"
#include "node.h"
#include "operator_call.h"

namespace scalpel {

class GroupCsrConv : public Kernel {
 public:
  void compute(OrtKernelContext& context) const final;

 protected:
  explicit GroupCsrConv(const Node& node);
  const Layer& layer() const { return layer_; }
  // As the node has it; a plan says whether it is possible.
  const ConvGeometry& geometry() const { return geometry_; }

 private:
  // X [batch, C, in_h, in_w] and Y are not empty.
  virtual void run(Layer::Call& call, int64_t batch, int64_t in_h, int64_t in_w, float* Y,
                   const Epilogue& epilogue) const = 0;
  std::vector<int64_t> read(const Node& node, const char* name, size_t length) const;

  Layer layer_;
  size_t spatial_ = 0;
  ConvGeometry geometry_;
};

}  // namespace scalpel
