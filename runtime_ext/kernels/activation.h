// The activation, as every kernel computes it: y * gate(y) of y = clamp(sum, min, max).
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define SCALPEL_HOST_AND_DEVICE __host__ __device__
#else
#define SCALPEL_HOST_AND_DEVICE
#endif

namespace scalpel {

// What the result is multiplied by; the numbers are those of the operators' attribute.
enum class Gate : int32_t {
  kNone,       // 1
  kHardSwish,  // clamp(y / 6 + 1 / 2, 0, 1)
  kSilu,       // 1 / (1 + exp(-y))
  kGelu,       // (1 + erf(y / sqrt(2))) / 2
};
constexpr int32_t kGates = 4;

// NaN passes through, as in ONNX Runtime's Relu and Clip; where min > max, max wins.
constexpr float clamp(float value, float min, float max) {
  const float raised = value < min ? min : value;
  return raised > max ? max : raised;
}

SCALPEL_HOST_AND_DEVICE inline float gated(float y, Gate gate) {
  constexpr float kRootOfHalf = 0.70710678f;
  switch (gate) {
    case Gate::kHardSwish:
      return y * clamp(y * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f);
    case Gate::kSilu:
      return y / (1.0f + expf(-y));
    case Gate::kGelu:
      return 0.5f * y * (1.0f + erff(y * kRootOfHalf));
    case Gate::kNone:
      break;
  }
  return y;
}

SCALPEL_HOST_AND_DEVICE inline float activate(float sum, float min, float max, Gate gate) {
  return gated(clamp(sum, min, max), gate);
}

}  // namespace scalpel
