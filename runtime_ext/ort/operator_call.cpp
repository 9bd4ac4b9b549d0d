#include "operator_call.h"

#include "error.h"
#include "tensor_info.h"

namespace scalpel {

OperatorCall::~OperatorCall() {
  if (failure_ != nullptr) api_.ReleaseStatus(failure_);
}

const void* OperatorCall::input_data(size_t index, Shape* shape) const {
  const OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetInput(&context_, index, &value));
  if (value == nullptr) throw Error(label_ + ": input " + std::to_string(index) + " is missing");
  const TensorInfo info(api_, value);
  shape->rank = info.rank();
  if (shape->rank > kMaxRank) {
    throw Error(label_ + ": input " + std::to_string(index) + " has more than 64 dimensions");
  }
  info.dims(shape->dims);
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  return data;
}

void* OperatorCall::output_data(const Shape& shape) {
  OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetOutput(&context_, 0, shape.dims, shape.rank, &value));
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(value, &data));
  return data;
}

Parallel OperatorCall::threads() { return {&OperatorCall::run, this}; }

void OperatorCall::run(void* self, void (*body)(void* user, size_t i), size_t count, void* user) {
  OperatorCall& call = *static_cast<OperatorCall*>(self);
  if (call.failure_ != nullptr || count == 0) return;
  if (count == 1) return body(user, 0);
  // As many portions as there is work: threads that finish early take from those that are late.
  call.failure_ = call.api_.KernelContext_ParallelFor(&call.context_, body, count, count, user);
}

void OperatorCall::finish() {
  if (failure_ == nullptr) return;
  OrtStatus* failure = failure_;
  failure_ = nullptr;
  check(api_, failure);
}

}  // namespace scalpel
