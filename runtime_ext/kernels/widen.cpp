#include "kernels/widen.h"

#include <algorithm>
#include <cstring>

namespace scalpel {
namespace {

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename Value>
std::vector<float> widened(const GroupCsrView& matrix) {
  const auto* values = static_cast<const Value*>(matrix.values);
  std::vector<float> result(static_cast<size_t>(matrix.n_groups * matrix.r * matrix.c));
  std::transform(values, values + result.size(), result.begin(), [](Value value) { return widen(value); });
  return result;
}

}  // namespace

float widen(Float16 value) {
  constexpr uint32_t kFractionBits = 10, kExponentMask = 0x1f, kFractionMask = 0x3ff;
  constexpr uint32_t kMoreFractionBits = 23 - kFractionBits, kBiasDifference = 127 - 15;
  constexpr float kSmallest = 0x1p-24f;
  const uint32_t exponent = value.bits >> kFractionBits & kExponentMask, fraction = value.bits & kFractionMask;
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  if (exponent == 0) {  // zero or subnormal
    const float magnitude = static_cast<float>(fraction) * kSmallest;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == kExponentMask ? 0xff : exponent + kBiasDifference;  // infinity or NaN
  return from_bits(sign | wide << 23 | fraction << kMoreFractionBits);
}

float widen(Bfloat16 value) { return from_bits(uint32_t{value.bits} << 16); }

WidenedValues::WidenedValues(const GroupCsrView& matrix) : data_(nullptr) {
  switch (matrix.value_type) {
    case ValueType::kFloat32:
      data_ = static_cast<const float*>(matrix.values);
      return;
    case ValueType::kFloat16:
      own_ = widened<Float16>(matrix);
      break;
    case ValueType::kBfloat16:
      own_ = widened<Bfloat16>(matrix);
      break;
  }
  data_ = own_.data();
}

}  // namespace scalpel
