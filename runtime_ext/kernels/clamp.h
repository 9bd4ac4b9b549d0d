// The activation, as every kernel computes it.
#pragma once

namespace scalpel {

// NaN passes through, as in ONNX Runtime's Relu and Clip; where min > max, max wins.
constexpr float clamp(float value, float min, float max) {
  const float raised = value < min ? min : value;
  return raised > max ? max : raised;
}

}  // namespace scalpel
