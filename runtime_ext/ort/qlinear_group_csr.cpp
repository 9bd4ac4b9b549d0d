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

// Input positions of all of them, then of QLinearGroupCsrConv and QLinearGroupCsrGemm, and of those two that add.
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

// A layer whose input, bias and output are all quantized by constants, and perhaps the addition behind it.
class QuantizedLayer {
 public:
  QuantizedLayer(const Node& node, bool is_signed, bool adds)
      : label(node.label()), weight_shape(node.ints_attribute("weight_shape")),
        matrix(read_matrix(node, weight_shape, kValues, StoredValues::kInt8)), memory(node.api()), adds_(adds),
        x_scale_(read_scale(node, kXScale, "x_scale")), scales_(read_weight_scales(node, matrix.M)),
        bias_(read_bias<int32_t>(node, kOrtInt32, matrix.M)) {
    input_.is_signed = is_signed;
    input_.zero_point = read_zero_point(node, kXZeroPoint, "x_zero_point", is_signed);
    epilogue_.type = is_signed ? ElementType::kInt8 : ElementType::kUint8;
    epilogue_.bias = bias_.data();
    if (adds_) {
      read_addition(node);
    } else {
      rescale(node, read_scale(node, kYScale, "y_scale"));
      epilogue_.zero_point = read_zero_point(node, kYZeroPoint, "y_zero_point", is_signed);
    }
  }
  QuantizedLayer(const QuantizedLayer&) = delete;
  QuantizedLayer& operator=(const QuantizedLayer&) = delete;

  QuantizedInput input(const OperatorCall& call, Shape* x) const {
    QuantizedInput input = input_;
    input.values = call.input<void>(kX, x);
    return input;
  }

  QuantizedEpilogue epilogue(const OperatorCall& call, const Shape& output) const {
    QuantizedEpilogue epilogue = epilogue_;
    if (adds_) epilogue.residual.values = residual_of(call, kResidual, output, label);
    return epilogue;
  }

  const std::string label;
  const std::vector<int64_t> weight_shape;
  const GroupCsrView matrix;
  const CpuMemory memory;

 private:
  // In the order in which ONNX Runtime rounds.
  void rescale(const Node& node, float output_scale) {
    for (float& scale : scales_) scale = finite(node, x_scale_ * scale / output_scale, "x_scale * w_scale / y_scale");
    epilogue_.scale = scales_.data();
  }

  void read_addition(const Node& node) {
    const bool is_signed = input_.is_signed;
    const float scale = read_scale(node, kSumScale, "y_scale");
    const int32_t zero_point = read_zero_point(node, kSumZeroPoint, "y_zero_point", is_signed);
    const auto other_zero_point =
        static_cast<float>(read_zero_point(node, kResidualZeroPoint, "residual_zero_point", is_signed));
    Residual& residual = epilogue_.residual;
    residual.type = epilogue_.type;
    residual.is_first = node.int_attribute("residual_first") != 0;
    residual.scale = finite(node, read_scale(node, kResidualScale, "residual_scale") / scale, "residual_scale / y_scale");
    const float other = residual.scale * other_zero_point;
    residual.quantizes_sum = node.int_attribute("rounds_product") != 0;
    if (!residual.quantizes_sum) {
      rescale(node, scale);
      residual.offset = -other;
      epilogue_.zero_point = zero_point;
      return;
    }
    const float product_scale = read_scale(node, kProductScale, "product_scale");
    rescale(node, product_scale);
    residual.sum_scale = finite(node, product_scale / scale, "product_scale / y_scale");
    residual.sum_zero_point = read_zero_point(node, kProductZeroPoint, "product_zero_point", is_signed);
    const auto own_zero_point = static_cast<float>(residual.sum_zero_point);
    const float own = residual.sum_scale * own_zero_point;
    residual.offset = static_cast<float>(zero_point) - (residual.is_first ? other + own : own + other);
    residual.sum_min = static_cast<float>(lowest(is_signed)) - own_zero_point;
    residual.sum_max = static_cast<float>(highest(is_signed)) - own_zero_point;
    epilogue_.zero_point = 0;  // the offset has it
  }

  const bool adds_;
  QuantizedInput input_;        // without values
  QuantizedEpilogue epilogue_;  // without the values of a residual
  float x_scale_;
  std::vector<float> scales_;
  std::vector<int32_t> bias_;
};

// A layer whose output is float32 and whose input may be quantized while the model runs.
class ToFloatLayer {
 public:
  ToFloatLayer(const Node& node, bool is_signed)
      : label(node.label()), weight_shape(node.ints_attribute("weight_shape")),
        matrix(read_matrix(node, weight_shape, kValues, StoredValues::kInt8)), memory(node.api()),
        is_signed_(is_signed), scales_(read_weight_scales(node, matrix.M)),
        bias_(read_bias<float>(node, kOrtFloat, matrix.M)) {
    Tensor residual;
    has_residual_ = !node.find_constant(kToFloatResidual, &residual) || !node.is_zero_scalar(residual);
  }
  ToFloatLayer(const ToFloatLayer&) = delete;
  ToFloatLayer& operator=(const ToFloatLayer&) = delete;

  QuantizedInput input(const OperatorCall& call, Shape* x) const {
    QuantizedInput input;
    input.is_signed = is_signed_;
    input.values = call.input<void>(kX, x);
    input.zero_point = zero_point_of(scalar(call, kXZeroPoint, "x_zero_point"), is_signed_);
    return input;
  }

  // Of workspace, for the scales of the rows of one call.
  size_t scales_bytes() const { return (scales_.size() * sizeof(float) + 63) / 64 * 64; }

  QuantizedEpilogue epilogue(const OperatorCall& call, const Shape& output, void* workspace) const {
    const float x_scale = *static_cast<const float*>(scalar(call, kXScale, "x_scale"));
    auto* scales = static_cast<float*>(workspace);
    for (size_t m = 0; m < scales_.size(); ++m) scales[m] = x_scale * scales_[m];
    QuantizedEpilogue epilogue;
    epilogue.type = ElementType::kFloat32;
    epilogue.scale = scales;
    epilogue.float_bias = bias_.data();
    epilogue.residual.values = has_residual_ ? residual_of(call, kToFloatResidual, output, label) : nullptr;
    epilogue.residual.type = ElementType::kFloat32;
    return epilogue;
  }

  const std::string label;
  const std::vector<int64_t> weight_shape;
  const GroupCsrView matrix;
  const CpuMemory memory;

 private:
  const void* scalar(const OperatorCall& call, size_t index, const char* name) const {
    Shape shape;
    const void* data = call.input<void>(index, &shape);
    if (shape.rank != 0) {
      throw Error(label + ": " + name + " " + to_string(shape.dims, shape.rank) + " must be a scalar");
    }
    return data;
  }

  const bool is_signed_;
  bool has_residual_ = true;
  const std::vector<float> scales_;
  const std::vector<float> bias_;
};

// A product: the plan of a matrix, and the shapes of a call.
class Product {
 public:
  Product(const Node& node, const std::vector<int64_t>& weight_shape, const GroupCsrView& matrix, Isa isa)
      : label_(node.label()), matrix_(matrix) {
    if (weight_shape.size() != 2) node.fail("weight_shape " + to_string(weight_shape) + " must be [M, K]");
    std::string error;
    plan_ = make_quantized_gemm_plan(matrix, isa, &error);
    if (plan_ == nullptr) node.fail(error);
  }

  struct Work {
    Shape output;
    int64_t N;
  };
  Work work(const Shape& x) const {
    Work work{};
    work.output = product_shape(x, label_, matrix_, &work.N);
    return work;
  }

  size_t workspace_bytes(const Work& work) const { return plan_->workspace_bytes(work.N); }

  void run(const Work& work, const QuantizedInput& X, void* Y, const QuantizedEpilogue& epilogue, void* workspace,
           const Parallel& threads) const {
    plan_->run(X, work.N, Y, epilogue, workspace, threads);
  }

 private:
  std::string label_;
  GroupCsrView matrix_;
  std::unique_ptr<QuantizedGemmPlan> plan_;
};

// A convolution, likewise.
class Convolution {
 public:
  Convolution(const Node& node, const std::vector<int64_t>& weight_shape, const GroupCsrView& matrix, Isa isa)
      : attributes_(node, weight_shape) {
    std::string error;
    plan_ = make_quantized_conv_plan(matrix, attributes_.geometry(), isa, &error);
    if (plan_ == nullptr) node.fail(error);
  }

  using Work = ConvAttributes::Images;
  Work work(const Shape& x) const { return attributes_.images(x); }

  size_t workspace_bytes(const Work& work) const { return plan_->workspace_bytes(work.batch, work.in_h, work.in_w); }

  void run(const Work& work, const QuantizedInput& X, void* Y, const QuantizedEpilogue& epilogue, void* workspace,
           const Parallel& threads) const {
    plan_->run(X, work.batch, work.in_h, work.in_w, Y, epilogue, workspace, threads);
  }

 private:
  ConvAttributes attributes_;
  std::unique_ptr<QuantizedConvPlan> plan_;
};

template <typename Operation>
class QLinear final : public Kernel {
 public:
  QLinear(const Node& node, Isa isa, bool is_signed, bool adds)
      : Kernel(node.api()), layer_(node, is_signed, adds), operation_(node, layer_.weight_shape, layer_.matrix, isa) {}

  void compute(OrtKernelContext& context) const override {
    OperatorCall call(api(), layer_.label, context);
    Workspace workspace(layer_.memory, context);
    Shape x;
    const QuantizedInput input = layer_.input(call, &x);
    const auto work = operation_.work(x);
    void* Y = call.output<void>(work.output);
    const QuantizedEpilogue epilogue = layer_.epilogue(call, work.output);
    if (work.output.is_empty()) return;
    void* scratch = workspace.get(operation_.workspace_bytes(work), layer_.label);
    operation_.run(work, input, Y, epilogue, scratch, call.threads());
    call.finish();
  }

 private:
  const QuantizedLayer layer_;
  const Operation operation_;
};

template <typename Operation>
class ToFloat final : public Kernel {
 public:
  ToFloat(const Node& node, Isa isa, bool is_signed)
      : Kernel(node.api()), layer_(node, is_signed), operation_(node, layer_.weight_shape, layer_.matrix, isa) {}

  void compute(OrtKernelContext& context) const override {
    OperatorCall call(api(), layer_.label, context);
    Workspace workspace(layer_.memory, context);
    Shape x;
    const QuantizedInput input = layer_.input(call, &x);
    const auto work = operation_.work(x);
    void* Y = call.output<void>(work.output);
    const size_t for_scales = layer_.scales_bytes();
    auto* memory =
        static_cast<unsigned char*>(workspace.get(for_scales + operation_.workspace_bytes(work), layer_.label));
    const QuantizedEpilogue epilogue = layer_.epilogue(call, work.output, memory);
    if (work.output.is_empty()) return;
    operation_.run(work, input, Y, epilogue, memory + for_scales, call.threads());
    call.finish();
  }

 private:
  const ToFloatLayer layer_;
  const Operation operation_;
};

}  // namespace

std::unique_ptr<Kernel> make_qlinear_gemm(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<QLinear<Product>>(node, isa, is_signed, false);
}

std::unique_ptr<Kernel> make_qlinear_gemm_add(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<QLinear<Product>>(node, isa, is_signed, true);
}

std::unique_ptr<Kernel> make_qlinear_conv(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<QLinear<Convolution>>(node, isa, is_signed, false);
}

std::unique_ptr<Kernel> make_qlinear_conv_add(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<QLinear<Convolution>>(node, isa, is_signed, true);
}

std::unique_ptr<Kernel> make_gemm_integer_to_float(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<ToFloat<Product>>(node, isa, is_signed);
}

std::unique_ptr<Kernel> make_conv_integer_to_float(const Node& node, Isa isa, bool is_signed) {
  return std::make_unique<ToFloat<Convolution>>(node, isa, is_signed);
}

}  // namespace scalpel
