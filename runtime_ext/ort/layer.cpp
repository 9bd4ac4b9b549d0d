#include "layer.h"

#include <algorithm>

#include "error.h"

namespace scalpel {
namespace {

constexpr size_t kAlignment = 64;

bool find_value_type(OrtElementType type, ValueType* out) {
  switch (type) {
    case kOrtFloat:
      *out = ValueType::kFloat32;
      return true;
    case kOrtFloat16:
      *out = ValueType::kFloat16;
      return true;
    case kOrtBfloat16:
      *out = ValueType::kBfloat16;
      return true;
    default:
      return false;
  }
}

}  // namespace

bool multiply(int64_t a, int64_t b, int64_t* product) { return !__builtin_mul_overflow(a, b, product); }

Layer::Layer(const Node& node) : api_(node.api()), label_(node.label()) {
  weight_shape_ = node.ints_attribute("weight_shape");
  read_matrix(node);
  read_bias(node);
  read_residual(node);
  read_activation(node);
  check(api_, api_.CreateCpuMemoryInfo(kOrtArenaAllocator, kOrtMemoryDefault, &cpu_memory_));
}

Layer::~Layer() { api_.ReleaseMemoryInfo(cpu_memory_); }

void Layer::fail(const std::string& what) const { throw Error(label_ + ": " + what); }

void Layer::read_matrix(const Node& node) {
  const std::string shape = "weight_shape " + to_string(weight_shape_);
  if (weight_shape_.size() < 2) fail(shape + " has fewer than two dimensions");
  matrix_.M = weight_shape_[0];
  matrix_.K = 1;
  int64_t size = 0;
  for (size_t i = 0; i < weight_shape_.size(); ++i) {
    if (weight_shape_[i] < 1) fail(shape + " has a dimension below 1");
    if (i > 0 && !multiply(matrix_.K, weight_shape_[i], &matrix_.K)) fail(shape + " is too large");
  }
  if (!multiply(matrix_.M, matrix_.K, &size)) fail(shape + " is too large");

  const Tensor values = node.constant(kValues, "values");
  if (!find_value_type(values.type, &matrix_.value_type) || values.dims.size() != 3 || values.dims[1] < 1 ||
      values.dims[2] < 1) {
    fail("values must be float32, float16 or bfloat16 [n_groups, r, c] with r, c >= 1, got " + describe(values));
  }
  matrix_.values = values.data;
  matrix_.n_groups = values.dims[0];
  matrix_.r = values.dims[1];
  matrix_.c = values.dims[2];

  const Tensor row_offsets = node.constant(kRowOffsets, "row_offsets");
  if (row_offsets.type != kOrtInt32 || row_offsets.dims.size() != 1) {
    fail("row_offsets must be int32 [ceil(M / r) + 1], got " + describe(row_offsets));
  }
  matrix_.row_offsets = static_cast<const int32_t*>(row_offsets.data);
  matrix_.n_row_offsets = row_offsets.dims[0];

  const Tensor columns = node.constant(kColumnIndices, "column_indices");
  const bool known_type = columns.type == kOrtUint16 || columns.type == kOrtInt32;
  if (!known_type || columns.dims.size() != 1 || columns.dims[0] != matrix_.n_groups) {
    fail("column_indices must be uint16 or int32 [" + std::to_string(matrix_.n_groups) + "], got " +
         describe(columns));
  }
  if (columns.type == kOrtUint16) {
    matrix_.columns_u16 = static_cast<const uint16_t*>(columns.data);
  } else {
    matrix_.columns_i32 = static_cast<const int32_t*>(columns.data);
  }
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
    : OperatorCall(layer.api_, layer.label_, context), layer_(layer) {
  x_ = input(kX, &x_shape_);
}

Layer::Call::~Call() {
  // Nothing can be done about a failure to free.
  if (memory_ != nullptr) {
    if (OrtStatus* status = api().AllocatorFree(allocator_, memory_)) api().ReleaseStatus(status);
  }
  if (allocator_ != nullptr) api().ReleaseAllocator(allocator_);
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

void* Layer::Call::workspace(size_t bytes) {
  if (bytes == 0) return nullptr;
  check(api(), api().KernelContext_GetAllocator(&context(), layer_.cpu_memory_, &allocator_));
  if (OrtStatus* status = api().AllocatorAlloc(allocator_, bytes + kAlignment - 1, &memory_)) {
    api().ReleaseStatus(status);  // says less than we do
    memory_ = nullptr;
  }
  if (memory_ == nullptr) layer_.fail("no memory for " + std::to_string(bytes) + " bytes of workspace");
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory_);
  return reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace scalpel
