// GroupCsrGemm and GroupCsrScaledGemm but for what computes them.
#pragma once

#include <cstdint>

#include "layer.h"
#include "node.h"
#include "operator_call.h"

namespace scalpel {

class GroupCsrGemm : public Kernel {
 public:
  void compute(OrtKernelContext& context) const final;

 protected:
  GroupCsrGemm(const Node& node, StoredValues stored);
  const Layer& layer() const { return layer_; }

 private:
  // X [N, K] and Y [N, M] are not empty.
  virtual void run(Layer::Call& call, int64_t N, float* Y, const Epilogue& epilogue) const = 0;

  Layer layer_;
};

}  // namespace scalpel
