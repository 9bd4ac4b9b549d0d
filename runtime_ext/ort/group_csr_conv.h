// GroupCsrConv but for what computes it.
#pragma once

#include <cstdint>

#include "conv_attributes.h"
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
  const ConvGeometry& geometry() const { return attributes_.geometry(); }

 private:
  // X [batch, C, in_h, in_w] and Y are not empty.
  virtual void run(Layer::Call& call, int64_t batch, int64_t in_h, int64_t in_w, float* Y,
                   const Epilogue& epilogue) const = 0;

  Layer layer_;
  ConvAttributes attributes_;
};

}  // namespace scalpel
