#include "shape_inference.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "error.h"
#include "layer.h"

namespace scalpel {
namespace {

constexpr int64_t kUnknown = -1;

struct Dim {
  int64_t value = kUnknown;
  std::string name;  // of a symbolic dimension

  bool is_settled() const { return value >= 0 || !name.empty(); }
};

OrtElementType input_type(const OrtApi& api, const OrtShapeInferContext& context, size_t index) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, api.ShapeInferContext_GetInputTypeShape(&context, index, &info));
  OrtElementType type = kOrtUndefined;
  check(api, api.GetTensorElementType(info, &type));
  return type;
}

// Empty where the rank is not known.
std::vector<Dim> input_shape(const OrtApi& api, const OrtShapeInferContext& context, size_t index) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, api.ShapeInferContext_GetInputTypeShape(&context, index, &info));
  size_t rank = 0;
  check(api, api.GetDimensionsCount(info, &rank));
  std::vector<int64_t> values(rank);
  std::vector<const char*> names(rank);
  check(api, api.GetDimensions(info, values.data(), rank));
  check(api, api.GetSymbolicDimensions(info, names.data(), rank));
  std::vector<Dim> shape(rank);
  for (size_t i = 0; i < rank; ++i) {
    shape[i].value = values[i];
    if (values[i] < 0 && names[i] != nullptr) shape[i].name = names[i];
  }
  return shape;
}

std::optional<std::vector<int64_t>> ints(const OrtApi& api, const OrtShapeInferContext& context, const char* name) {
  const OrtOpAttr* attribute = nullptr;
  if (OrtStatus* status = api.ShapeInferContext_GetAttribute(&context, name, &attribute)) {
    api.ReleaseStatus(status);
    return std::nullopt;
  }
  size_t bytes = 0;
  if (OrtStatus* status = api.ReadOpAttr(attribute, kOrtAttributeInts, nullptr, 0, &bytes)) api.ReleaseStatus(status);
  std::vector<int64_t> values(bytes / sizeof(int64_t));
  check(api, api.ReadOpAttr(attribute, kOrtAttributeInts, values.data(), bytes, &bytes));
  return values;
}

void set_output(const OrtApi& api, OrtShapeInferContext& context, const std::vector<Dim>& shape,
                OrtElementType type = kOrtFloat) {
  // ONNX Runtime has no way to say that one dimension is unknown: it takes -1 for its size.
  for (const Dim& dim : shape) {
    if (!dim.is_settled()) return;
  }
  std::vector<int64_t> values;
  std::vector<const char*> names;
  for (const Dim& dim : shape) {
    values.push_back(dim.value);
    names.push_back(dim.name.c_str());
  }
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, api.CreateTensorTypeAndShapeInfo(&info));
  struct Release {
    const OrtApi& api;
    OrtTensorTypeAndShapeInfo* info;
    ~Release() { api.ReleaseTensorTypeAndShapeInfo(info); }
  } release{api, info};
  check(api, api.SetTensorElementType(info, type));
  check(api, api.SetDimensions(info, values.data(), values.size()));
  check(api, api.SetSymbolicDimensions(info, names.data(), names.size()));
  check(api, api.ShapeInferContext_SetOutputTypeShape(&context, 0, info));
}

// One axis of a convolution's output.
Dim convolved(const Dim& in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pads) {
  const int64_t reach = dilation * (kernel - 1);
  if (stride == 1 && pads == reach) return in;
  Dim out;
  int64_t padded = 0;
  const bool is_known = in.value >= 0 && !__builtin_add_overflow(in.value, pads, &padded);
  if (is_known && padded > reach) out.value = (padded - reach - 1) / stride + 1;
  return out;
}

bool all_between(const std::vector<int64_t>& values, int64_t smallest) {
  for (int64_t value : values) {
    if (value < smallest || value > std::numeric_limits<int32_t>::max()) return false;
  }
  return true;
}

void infer_gemm(const OrtApi& api, OrtShapeInferContext& context, OrtElementType type) {
  std::vector<Dim> shape = input_shape(api, context, kX);
  const auto weight = ints(api, context, "weight_shape");
  if (shape.empty() || !weight || weight->size() != 2) return;
  shape.back() = {(*weight)[0], ""};
  set_output(api, context, shape, type);
}

void infer_conv(const OrtApi& api, OrtShapeInferContext& context, OrtElementType type) {
  std::vector<Dim> shape = input_shape(api, context, kX);
  const auto weight = ints(api, context, "weight_shape"), strides = ints(api, context, "strides"),
             pads = ints(api, context, "pads"), dilations = ints(api, context, "dilations");
  if (shape.size() < 3 || !weight || !strides || !pads || !dilations) return;
  const size_t spatial = shape.size() - 2;
  if (weight->size() != shape.size() || strides->size() != spatial || dilations->size() != spatial ||
      pads->size() != 2 * spatial || !all_between(*weight, 1) || !all_between(*strides, 1) ||
      !all_between(*dilations, 1) || !all_between(*pads, 0)) {
    return;
  }
  shape[1] = {(*weight)[0], ""};
  for (size_t i = 0; i < spatial; ++i) {
    shape[2 + i] = convolved(shape[2 + i], (*weight)[2 + i], (*strides)[i], (*dilations)[i],
                             (*pads)[i] + (*pads)[spatial + i]);
  }
  set_output(api, context, shape, type);
}

}  // namespace

void infer_gemm_shape(const OrtApi& api, OrtShapeInferContext& context) { infer_gemm(api, context, kOrtFloat); }
void infer_conv_shape(const OrtApi& api, OrtShapeInferContext& context) { infer_conv(api, context, kOrtFloat); }
void infer_q_gemm_shape(const OrtApi& api, OrtShapeInferContext& context) { infer_gemm(api, context, kOrtInt16); }
void infer_q_conv_shape(const OrtApi& api, OrtShapeInferContext& context) { infer_conv(api, context, kOrtInt16); }

void infer_qlinear_gemm_shape(const OrtApi& api, OrtShapeInferContext& context) {
  infer_gemm(api, context, input_type(api, context, kX));
}
void infer_qlinear_conv_shape(const OrtApi& api, OrtShapeInferContext& context) {
  infer_conv(api, context, input_type(api, context, kX));
}

void infer_lrn_shape(const OrtApi& api, OrtShapeInferContext& context) {
  const std::vector<Dim> shape = input_shape(api, context, kX);
  if (!shape.empty()) set_output(api, context, shape);
}

}  // namespace scalpel
