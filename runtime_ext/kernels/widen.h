// Stored values as float32, in portable code: what plans use that widen a matrix once, and what the widening of the
// vector kernels is tested against.
#pragma once

#include <vector>

#include "kernels/interface.h"
#include "kernels/value_types.h"

namespace scalpel {

// Exact: every 16-bit number is a float32.
float widen(Float16 value);
float widen(Bfloat16 value);

// The values of a matrix, those that are integers times the scale of their row; read in place where they are float32:
// then the matrix must outlive this.
class WidenedValues {
 public:
  explicit WidenedValues(const GroupCsrView& matrix);  // a validated one
  WidenedValues(const WidenedValues&) = delete;
  WidenedValues& operator=(const WidenedValues&) = delete;

  const float* data() const { return data_; }

 private:
  std::vector<float> own_;
  const float* data_;
};

}  // namespace scalpel
