#include "node.h"

#include <iterator>

#include "error.h"
#include "tensor_info.h"

namespace scalpel {

std::string to_string(const int64_t* dims, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < rank; ++i) text += (i == 0 ? "" : ", ") + std::to_string(dims[i]);
  return text + "]";
}

std::string describe(const Tensor& tensor) {
  // In the order of ONNX's element types.
  static constexpr const char* kNames[] = {"undefined", "float32", "uint8",   "int8",   "uint16",  "int16",
                                           "int32",     "int64",   "string",  "bool",   "float16", "float64",
                                           "uint32",    "uint64",  "complex64", "complex128", "bfloat16"};
  const auto type = static_cast<size_t>(tensor.type);
  return (type < std::size(kNames) ? kNames[type] : "another type") + (" " + to_string(tensor.dims));
}

Node::Node(const OrtApi& api, const OrtKernelInfo& info, const char* op_type, CopyToHost copy_to_host)
    : api_(api), info_(info), copy_to_host_(copy_to_host) {
  size_t size = 0;
  check(api_, api_.KernelInfo_GetNodeName(&info_, nullptr, &size));
  std::string name(size, '\0');
  check(api_, api_.KernelInfo_GetNodeName(&info_, name.data(), &size));
  name.resize(size - 1);
  label_ = std::string(op_type) + " node '" + name + "'";
}

void Node::fail(const std::string& what) const { throw Error(label_ + ": " + what); }

int64_t Node::int_attribute(const char* name) const {
  int64_t value = 0;
  if (OrtStatus* status = api_.KernelInfoGetAttribute_int64(&info_, name, &value)) {
    api_.ReleaseStatus(status);
    fail(std::string("attribute ") + name + " (int) is missing");
  }
  return value;
}

float Node::float_attribute(const char* name) const {
  float value = 0;
  if (OrtStatus* status = api_.KernelInfoGetAttribute_float(&info_, name, &value)) {
    api_.ReleaseStatus(status);
    fail(std::string("attribute ") + name + " (float) is missing");
  }
  return value;
}

std::vector<int64_t> Node::ints_attribute(const char* name) const {
  size_t size = 0;
  std::vector<int64_t> values;
  OrtStatus* status = api_.KernelInfoGetAttributeArray_int64(&info_, name, nullptr, &size);
  if (status == nullptr) {
    values.resize(size);
    status = api_.KernelInfoGetAttributeArray_int64(&info_, name, values.data(), &size);
  }
  if (status != nullptr) {
    api_.ReleaseStatus(status);
    fail(std::string("attribute ") + name + " (ints) is missing");
  }
  return values;
}

bool Node::find_constant(size_t index, Tensor* out) const {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(api_, api_.KernelInfoGetConstantInput_tensor(&info_, index, &is_constant, &value));
  if (!is_constant || value == nullptr) return false;
  const TensorInfo info(api_, value);
  out->type = info.type();
  out->dims.resize(info.rank());
  info.dims(out->dims.data());
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  out->data = data;
  return true;
}

Tensor Node::constant(size_t index, const char* name) const {
  Tensor tensor;
  if (!find_constant(index, &tensor)) {
    fail("input " + std::to_string(index) + ", " + name +
         ", is not a constant: store it as an initializer that is not also an input of the graph");
  }
  return tensor;
}

bool Node::is_zero_scalar(const Tensor& tensor) const {
  if (tensor.type != kOrtFloat || !tensor.dims.empty()) return false;
  float value = 0;
  copy_to_host_(&value, tensor.data, sizeof value);
  return value == 0;
}

}  // namespace scalpel
