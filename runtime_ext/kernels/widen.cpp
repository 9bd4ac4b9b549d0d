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

std::vector<float> scaled(const GroupCsrView& matrix) {
  const auto* values = static_cast<const int8_t*>(matrix.values);
  std::vector<float> result(static_cast<size_t>(matrix.n_groups * matrix.r * matrix.c));
  for (int64_t block = 0; block + 1 < matrix.n_row_offsets; ++block) {
    for (int64_t group = matrix.row_offsets[block]; group < matrix.row_offsets[block + 1]; ++group) {
      for (int64_t row = 0; row < matrix.r && block * matrix.r + row < matrix.M; ++row) {
        const float scale = matrix.row_scale[block * matrix.r + row];
        const int64_t first = (group * matrix.r + row) * matrix.c;
        for (int64_t i = first; i < first + matrix.c; ++i) result[static_cast<size_t>(i)] = static_cast<float>(values[i]) * scale;
      }
    }
  }
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
    case ValueType::kInt8:
      own_ = scaled(matrix);
      break;
  }
  data_ = own_.data();
}

}  // namespace scalpel
