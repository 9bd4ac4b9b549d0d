// Element type and dimensions of a value.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi.h"
#include "error.h"

namespace scalpel {

class TensorInfo {
 public:
  TensorInfo(const OrtApi& api, const OrtValue* value) : api_(api) {
    check(api_, api_.GetTensorTypeAndShape(value, &info_));
  }
  TensorInfo(const TensorInfo&) = delete;
  TensorInfo& operator=(const TensorInfo&) = delete;
  ~TensorInfo() { api_.ReleaseTensorTypeAndShapeInfo(info_); }

  OrtElementType type() const {
    OrtElementType type = kOrtUndefined;
    check(api_, api_.GetTensorElementType(info_, &type));
    return type;
  }
  size_t rank() const {
    size_t rank = 0;
    check(api_, api_.GetDimensionsCount(info_, &rank));
    return rank;
  }
  // out: [rank()]
  void dims(int64_t* out) const { check(api_, api_.GetDimensions(info_, out, rank())); }

 private:
  const OrtApi& api_;
  OrtTensorTypeAndShapeInfo* info_ = nullptr;
};

}  // namespace scalpel
