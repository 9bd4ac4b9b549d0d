// What a convolution says of itself in its attributes, and the sizes that follow from it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.h"
#include "node.h"
#include "operator_call.h"

namespace scalpel {

class ConvAttributes {
 public:
  // Throws Error if the attributes do not fit the attribute weight_shape, which is given.
  ConvAttributes(const Node& node, const std::vector<int64_t>& weight_shape);

  // As the node has it; a plan says whether it is possible.
  const ConvGeometry& geometry() const { return geometry_; }

  struct Images {
    int64_t batch, in_h, in_w;
    Shape output;
  };
  // For an input of shape x; throws Error if the layer cannot have it.
  Images images(const Shape& x) const;

 private:
  std::string label_;
  int64_t M_ = 0;
  size_t spatial_ = 0;
  ConvGeometry geometry_;
};

}  // namespace scalpel
