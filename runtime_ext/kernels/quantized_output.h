// What becomes of a sum, one at a time: the definition that every kernel's store is tested against. Only for sources
// compiled without contraction of a * b + c, where a multiply-add has to be asked for.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/quantized.h"

namespace scalpel {

inline size_t element_size(ElementType type) {
  return type == ElementType::kUint8 || type == ElementType::kInt8 ? 1 : sizeof(float);
}

// The bounds of an 8-bit type less its zero point, cut to [min, max].
struct QuantizedRange {
  explicit QuantizedRange(const QuantizedEpilogue& epilogue) {
    const bool is_signed = epilogue.type == ElementType::kInt8;
    const auto lowest = static_cast<float>((is_signed ? INT8_MIN : 0) - epilogue.zero_point);
    const auto highest = static_cast<float>((is_signed ? INT8_MAX : UINT8_MAX) - epilogue.zero_point);
    min = epilogue.min > lowest ? (epilogue.min < highest ? epilogue.min : highest) : lowest;
    max = epilogue.max < highest ? (epilogue.max > lowest ? epilogue.max : lowest) : highest;
  }
  float min, max;
};

inline float residual_at(const Residual& residual, int64_t i) {
  switch (residual.type) {
    case ElementType::kUint8:
      return static_cast<const uint8_t*>(residual.values)[i];
    case ElementType::kInt8:
      return static_cast<const int8_t*>(residual.values)[i];
    default:
      return static_cast<const float*>(residual.values)[i];
  }
}

// NaN becomes `min`; where min > max, max wins.
inline float round_within(float value, float min, float max) {
  const float raised = value > min ? value : min;
  return std::nearbyintf(raised < max ? raised : max);
}

// Element `i` of Y, of row m: `sum` has the bias.
inline void store_sum(int32_t sum, int64_t m, int64_t i, const QuantizedEpilogue& epilogue, void* Y) {
  if (epilogue.type == ElementType::kInt32) {
    static_cast<int32_t*>(Y)[i] = sum;
    return;
  }
  float q = static_cast<float>(sum) * epilogue.scale[m];
  if (epilogue.float_bias != nullptr) q += epilogue.float_bias[m];
  const Residual& residual = epilogue.residual;
  if (residual.values != nullptr) {
    if (residual.quantizes_sum) {
      q = round_within(q, residual.sum_min, residual.sum_max) + static_cast<float>(residual.sum_zero_point);
    }
    const float x = residual_at(residual, i);
    q = residual.is_first ? std::fma(x, residual.scale, std::fma(q, residual.sum_scale, residual.offset))
                          : std::fma(q, residual.sum_scale, std::fma(x, residual.scale, residual.offset));
  }
  if (epilogue.type == ElementType::kFloat32) {
    static_cast<float*>(Y)[i] = clamp(q, epilogue.min, epilogue.max);
    return;
  }
  const QuantizedRange range(epilogue);
  const int32_t rounded = static_cast<int32_t>(round_within(q, range.min, range.max)) + epilogue.zero_point;
  static_cast<uint8_t*>(Y)[i] = static_cast<uint8_t>(rounded);
}

}  // namespace scalpel
