// The operators of 8-bit networks; see scalpel_graph/qlinear_ops.py.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "conv_attributes.h"
#include "error.h"
#include "kernels/quantized.h"
#include "matrix_inputs.h"
#include "operators.h"
#include "product_shape.h"
#include "workspace.h"

namespace scalpel {
namespace {

// Input positions of all of them, then of QLinearGroupCsrConv and QLinearGroupCsrGemm, and of QLinearGroupCsrConvAdd.
enum Input : size_t { kX, kXScale, kXZeroPoint, kValues, kRowOffsets, kColumnIndices, kWScale, kBias, kYScale, kYZeroPoint };
constexpr size_t kToFloatResidual = 8;
enum AddInput : size_t {
  kProductScale = kYScale, kProductZeroPoint, kResidual, kResidualScale, kResidualZeroPoint, kSumScale, kSumZeroPoint
};

float finite(const Node& node, float value, const char* name) {
  if (!std::isfinite(value)) node.fail(std::string(name) + " is not finite");
  return value;
}

float read_scale(const Node& node, size_t index, const char* name) {
  const Tensor tensor = node.constant(index, name);
  if (tensor.type != kOrtFloat || !tensor.dims.empty()) {
    node.fail(std::string(name) + " must be a float32 scalar, got " + describe(tensor));
  }
  const float scale = finite(node, *static_cast<const float*>(tensor.data), name);
  if (scale <= 0) node.fail(std::string(name) + " must be above 0");
  return scale;
}

int32_t zero_point_of(const void* data, bool is_signed) {
  return is_signed ? int32_t{*static_cast<const int8_t*>(data)} : int32_t{*static_cast<const uint8_t*>(data)};
}

int32_t read_zero_point(const Node& node, size_t index, const char* name, bool is_signed) {
  const Tensor tensor = node.constant(index, name);
  if (tensor.type != (is_signed ? kOrtInt8 : kOrtUint8) || !tensor.dims.empty()) {
    node.fail(std::string(name) + " must be a scalar of the type of X, " + (is_signed ? "int8" : "uint8") + ", got " +
              describe(tensor));
  }
  return zero_point_of(tensor.data, is_signed);
}

// What the weight's integers are multiples of, one for each row.
std::vector<float> read_weight_scales(const Node& node, int64_t M) {
  const Tensor tensor = node.constant(kWScale, "w_scale");
  const bool is_single = tensor.dims.empty();
  if (tensor.type != kOrtFloat || !(is_single || (tensor.dims.size() == 1 && tensor.dims[0] == M))) {
    node.fail("w_scale must be float32 [" + std::to_string(M) + "] or a scalar, got " + describe(tensor));
  }
  const float* data = static_cast<const float*>(tensor.data);
  std::vector<float> scales;
  for (int64_t m = 0; m < M; ++m) scales.push_back(finite(node, data[is_single ? 0 : m], "w_scale"));
  return scales;
}

template <typename Element>
std::vector<Element> read_bias(const Node& node, OrtElementType type, int64_t M) {
  const Tensor tensor = node.constant(kBias, "bias");
  if (tensor.type != type || tensor.dims.size() != 1 || tensor.dims[0] != M) {
    node.fail(std::string("bias must be ") + (type == kOrtFloat ? "float32 [" : "int32 [") + std::to_string(M) +
              "], got " + describe(tensor));
  }
  const Element* data = static_cast<const Element*>(tensor.data);
  return {data, data + M};
}

const void* residual_of(const OperatorCall& call, size_t index, const Shape& output, const std::string& label) {
  Shape shape;
  const void* data = call.input<void>(index, &shape);
  if (shape.rank != output.rank || !std::equal(shape.dims, shape.dims + shape.rank, output.dims)) {
    throw Error(label + ": residual " + to_string(shape.dims, shape.rank) + " must have the output's shape, " +
                to_string(output.dims, output.rank));
  }
  return data;
}

int32_t lowest(bool is_signed) { return is_signed ? INT8_MIN : 0; }
int32_t highest(bool is_signed) { return is_signed ? INT8_MAX : UINT8_MAX; }

// A layer whose input, bias and output are all quantized by constants.
class QuantizedLayer {
 public:
  QuantizedLayer(const Node& node, bool is_signed, size_t y_scale, size_t y_zero_point)
      : label(node.label()), weight_shape(node.ints_attribute("weight_shape")),
        matrix(read_matrix(node, weight_shape, kValues, StoredValues::kInt8)), memory(node.api()), x_scale_(read_scale(node, kXScale, "x_scale")),
        scales_(read_weight_scales(node, matrix.M)), bias_(read_bias<int32_t>(node, kOrtInt32, matrix.M)) {
    input.is_signed = is_signed;
    input.zero_point = read_zero_point(node, kXZeroPoint, "x_zero_point", is_signed);
    epilogue.type = is_signed ? ElementType::kInt8 : ElementType::kUint8;
    epilogue.bias = bias_.data();
    rescale(node, read_scale(node, y_scale, y_scale == kYScale ? "y_scale" : "product_scale"));
    epilogue.zero_point = read_zero_point(node, y_zero_point, "y_zero_point", is_signed);
  }
  QuantizedLayer(const QuantizedLayer&) = delete;
  QuantizedLayer& operator=(const QuantizedLayer&) = delete;

  const std::string label;
  const std::vector<int64_t> weight_shape;
  const GroupCsrView matrix;
  const CpuMemory memory;
  QuantizedInput input;        // without values
  QuantizedEpilogue epilogue;  // without a residual

 private:
  // In the order in which ONNX Runtime rounds.
  void rescale(const Node& node, float output_scale) {
    for (float& scale : scales_) scale = finite(node, x_scale_ * scale / output_scale, "x_scale * w_scale / y_scale");
    epilogue.scale = scales_.data();
  }

  float x_scale_;
  std::vector<float> scales_;
  std::vector<int32_t> bias_;
};

class QLinearGemm final : public Kernel {
 public:
  QLinearGemm(const Node& node, Isa isa, bool is_signed)
      : Kernel(node.api()), layer_(node, is_signed, kYScale, kYZeroPoint) {
    if (layer_.weight_shape.size() != 2) node.fail("weight_shape " + to_string(layer_.weight_shape) + " must be [M, K]");
    std::string error;
    plan_ = make_quantized_gemm_plan(layer_.matrix, isa, &error);
    if (plan_ == nullptr) node.fail(error);
  }

  void compute(OrtKernelContext& context) const override {
    OperatorCall call(api(), layer_.label, context);
    Workspace workspace(layer_.memory, context);
    Shape x;
    QuantizedInput input = layer_.input;
    input.values = call.input<void>(kX, &x);
    int64_t N = 0;
    const Shape shape = product_shape(x, layer_.label, layer_.matrix, &N);
    void* Y = call.output<void>(shape);
    if (shape.is_empty()) return;
    plan_->run(input, N, Y, layer_.epilogue, workspace.get(plan_->workspace_bytes(N), layer_.label), call.threads());
    call.finish();
  }

 private:
  const QuantizedLayer layer_;
  std::unique_ptr<QuantizedGemmPlan> plan_;
};

class QLinearConv final : public Kernel {
 public:
  QLinearConv(const Node& node, Isa isa, bool is_signed, bool adds)
      : Kernel(node.api()),
        layer_(node, is_signed, adds ? size_t{kProductScale} : size_t{kYScale}, adds ? size_t{kProductZeroPoint} : size_t{kYZeroPoint}),
        attributes_(node, layer_.weight_shape), epilogue_(layer_.epilogue), adds_(adds) {
    std::string error;
    plan_ = make_quantized_conv_plan(layer_.matrix, attributes_.geometry(), isa, &error);
    if (plan_ == nullptr) node.fail(error);
    if (adds_) read_addition(node);
  }

  void compute(OrtKernelContext& context) const override {
    OperatorCall call(api(), layer_.label, context);
    Workspace workspace(layer_.memory, context);
    Shape x;
    QuantizedInput input = layer_.input;
    input.values = call.input<void>(kX, &x);
    const ConvAttributes::Images images = attributes_.images(x);
    void* Y = call.output<void>(images.output);
    QuantizedEpilogue epilogue = epilogue_;
    if (adds_) epilogue.residual.values = residual_of(call, kResidual, images.output, layer_.label);
    if (images.output.is_empty()) return;
    void* scratch = workspace.get(plan_->workspace_bytes(images.batch, images.in_h, images.in_w), layer_.label);
    plan_->run(input, images.batch, images.in_h, images.in_w, Y, epilogue, scratch, call.threads());
    call.finish();
  }

 private:
  void read_addition(const Node& node) {
    const bool is_signed = layer_.input.is_signed;
    const float scale = read_scale(node, kSumScale, "y_scale");
    const auto zero_point = static_cast<float>(read_zero_point(node, kSumZeroPoint, "y_zero_point", is_signed));
    const auto own_zero_point = static_cast<float>(layer_.epilogue.zero_point);
    const auto other_zero_point =
        static_cast<float>(read_zero_point(node, kResidualZeroPoint, "residual_zero_point", is_signed));
    Residual& residual = epilogue_.residual;
    residual.type = layer_.epilogue.type;
    residual.is_first = node.int_attribute("residual_first") != 0;
    residual.scale = finite(node, read_scale(node, kResidualScale, "residual_scale") / scale, "residual_scale / y_scale");
    residual.sum_scale = finite(node, read_scale(node, kProductScale, "product_scale") / scale, "product_scale / y_scale");
    const float own = residual.sum_scale * own_zero_point, other = residual.scale * other_zero_point;
    residual.offset = zero_point - (residual.is_first ? other + own : own + other);
    residual.quantizes_sum = true;
    residual.sum_zero_point = layer_.epilogue.zero_point;
    residual.sum_min = static_cast<float>(lowest(is_signed)) - own_zero_point;
    residual.sum_max = static_cast<float>(highest(is_signed)) - own_zero_point;
    epilogue_.zero_point = 0;  // the offset has it
  }

  const QuantizedLayer layer_;
  const ConvAttributes attributes_;
  QuantizedEpilogue epilogue_;  // without the values of a residual
  const bool adds_;
  std::unique_ptr<QuantizedConvPlan> plan_;
};

// X may be quantized while the model runs.
class IntegerToFloat final : public Kernel {
 public:
  IntegerToFloat(const Node& node, Isa isa, bool is_signed)
      : Kernel(node.api()), label_(node.label()), weight_shape_(node.ints_attribute("weight_shape")),
        matrix_(read_matrix(node, weight_shape_, kValues, StoredValues::kInt8)), memory_(node.api()),
        is_signed_(is_signed), scales_(read_weight_scales(node, matrix_.M)),
        bias_(read_bias<float>(node, kOrtFloat, matrix_.M)) {
    if (weight_shape_.size() != 2) node.fail("weight_shape " + to_string(weight_shape_) + " must be [M, K]");
    std::string error;
    plan_ = make_quantized_gemm_plan(matrix_, isa, &error);
    if (plan_ == nullptr) node.fail(error);
    Tensor residual;
    has_residual_ = !node.find_constant(kToFloatResidual, &residual) || !node.is_zero_scalar(residual);
  }

  void compute(OrtKernelContext& context) const override {
    OperatorCall call(api(), label_, context);
    Shape x;
    QuantizedInput input;
    input.is_signed = is_signed_;
    input.values = call.input<void>(kX, &x);
    int64_t N = 0;
    const Shape shape = product_shape(x, label_, matrix_, &N);
    void* Y = call.output<void>(shape);
    const float x_scale = *static_cast<const float*>(scalar(call, kXScale, "x_scale"));
    input.zero_point = zero_point_of(scalar(call, kXZeroPoint, "x_zero_point"), is_signed_);
    const void* residual = has_residual_ ? residual_of(call, kToFloatResidual, shape, label_) : nullptr;
    if (shape.is_empty()) return;
    // The scales of the rows of this call, and what the plan needs.
    const size_t for_scales = (static_cast<size_t>(matrix_.M) * sizeof(float) + 63) / 64 * 64;
    Workspace workspace(memory_, context);
    auto* memory = static_cast<unsigned char*>(workspace.get(for_scales + plan_->workspace_bytes(N), label_));
    auto* scales = reinterpret_cast<float*>(memory);
    for (size_t m = 0; m < scales_.size(); ++m) scales[m] = x_scale * scales_[m];
    QuantizedEpilogue epilogue;
    epilogue.type = ElementType::kFloat32;
    epilogue.scale = scales;
    epilogue.float_bias = bias_.data();
    epilogue.residual.values = residual;
    epilogue.residual.type = ElementType::kFloat32;
    plan_->run(input, N, Y, epilogue, memory + for_scales, call.threads());
    call.finish();
  }

 private:
  const void* scalar(const OperatorCall& call, size_t index, const char* name) const {
    Shape shape;
    const void* data = call.input<void>(index, &shape);
    if (shape.rank != 0) {
      throw Error(label_ + ": " + name + " " + to_string(shape.dims, shape.rank) + " must be a scalar");
    }
    return data;
  }

  const std::string label_;
  const std::vector<int64_t> weight_shape_;
  const GroupCsrView matrix_;
  const CpuMemory memory_;
  const bool is_signed_;
  bool has_residual_ = true;
  const std::vector<float> scales_;
  const std::vector<float> bias_;
  std::unique_ptr<QuantizedGemmPlan> plan_;
};

}  // namespace

std::unique_ptr<Kernel> make_qlinear_gemm(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<QLinearGemm>(node, isa, is_signed);
}

std::unique_ptr<Kernel> make_qlinear_conv(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<QLinearConv>(node, isa, is_signed, false);
}

std::unique_ptr<Kernel> make_qlinear_conv_add(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<QLinearConv>(node, isa, is_signed, true);
}

std::unique_ptr<Kernel> make_integer_to_float(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<IntegerToFloat>(node, isa, is_signed);
}

}  // namespace scalpel
