// GroupCsrGemm but for what computes it.
#pragma once

#include <cstdint>
#include <string>

#include "layer.h"
#include "node.h"
#include "operator_call.h"

namespace scalpel {

class GroupCsrGemm : public Kernel {
 public:
  void compute(OrtKernelContext& context) const final;

 protected:
  explicit GroupCsrGemm(const Node& node);
  const Layer& layer() const { return layer_; }

 private:
  // X [N, K] and Y [N, M] are not empty.
  virtual void run(Layer::Call& call, int64_t N, float* Y, const Epilogue& epilogue) const = 0;

  Layer layer_;
};

// Of a product of X with the matrix; *rows is that of both as matrices. Throws Error if X does not fit.
Shape product_shape(const Shape& x, const std::string& label, const GroupCsrView& matrix, int64_t* rows);

}  // namespace scalpel
