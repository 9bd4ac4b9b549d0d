#include "layer.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace scalpel {

Layer::Layer(const Node& node, StoredValues stored) : api_(node.api()), label_(node.label()), cpu_memory_(node.api()) {
  weight_shape_ = node.ints_attribute("weight_shape");
  matrix_ = read_matrix(node, weight_shape_, kValues, stored);
  if (stored == StoredValues::kScaled) read_scales(node);
  read_bias(node);
  read_residual(node);
  read_activation(node);
}

void Layer::fail(const std::string& what) const { throw Error(label_ + ": " + what); }

void Layer::read_scales(const Node& node) {
  const Tensor scale = node.constant(kWScale, "w_scale");
  const bool is_single = scale.dims.empty();
  if (scale.type != kOrtFloat || !(is_single || (scale.dims.size() == 1 && scale.dims[0] == matrix_.M))) {
    fail("w_scale must be float32 [" + std::to_string(matrix_.M) + "] or a scalar, got " + describe(scale));
  }
  const float* data = static_cast<const float*>(scale.data);
  for (int64_t m = 0; m < matrix_.M; ++m) {
    row_scale_.push_back(data[is_single ? 0 : m]);
    if (!std::isfinite(row_scale_.back())) fail("w_scale is not finite");
  }
  matrix_.row_scale = row_scale_.data();
}

void Layer::read_bias(const Node& node) {
  const Tensor bias = node.constant(kBias, "bias");
  if (node.is_zero_scalar(bias)) return;
  if (bias.type != kOrtFloat || bias.dims.size() != 1 || bias.dims[0] != matrix_.M) {
    fail("bias must be float32 [" + std::to_string(matrix_.M) + "], or a scalar 0 for none, got " + describe(bias));
  }
  const float* data = static_cast<const float*>(bias.data);
  bias_.assign(data, data + matrix_.M);
  epilogue_.bias = bias_.data();
}

void Layer::read_residual(const Node& node) {
  Tensor residual;
  if (!node.find_constant(kResidual, &residual)) return;
  has_residual_ = !node.is_zero_scalar(residual);
  if (has_residual_ && residual.dims.empty()) {
    fail("residual must be float32 of the output's shape, or a scalar 0 for none, got another scalar");
  }
}

void Layer::read_activation(const Node& node) {
  epilogue_.min = node.float_attribute("activation_min");
  epilogue_.max = node.float_attribute("activation_max");
  if (!(epilogue_.min <= epilogue_.max)) {
    fail("activation_min " + std::to_string(epilogue_.min) + " is not at most activation_max " +
         std::to_string(epilogue_.max));
  }
  const int64_t gate = node.int_attribute("activation_gate");
  if (gate < 0 || gate >= kGates) {
    fail("activation_gate must be 0 to " + std::to_string(kGates - 1) + ", got " + std::to_string(gate));
  }
  epilogue_.gate = static_cast<Gate>(gate);
}

Layer::Call::Call(const Layer& layer, OrtKernelContext& context)
    : OperatorCall(layer.api_, layer.label_, context), layer_(layer), workspace_(layer.cpu_memory_, context) {
  x_ = input(kX, &x_shape_);
}

Epilogue Layer::Call::epilogue(const Shape& output) const {
  Epilogue epilogue = layer_.epilogue_;
  if (!layer_.has_residual_) return epilogue;
  Shape shape;
  epilogue.residual = input(kResidual, &shape);
  if (shape.rank != output.rank || !std::equal(shape.dims, shape.dims + shape.rank, output.dims)) {
    layer_.fail("residual " + to_string(shape.dims, shape.rank) + " must have the output's shape, " +
                to_string(output.dims, output.rank) +
                ": expand it, or give a constant scalar 0 for none (a residual is not broadcast)");
  }
  return epilogue;
}

}  // namespace scalpel
