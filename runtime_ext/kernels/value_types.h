// The 16-bit types that values can be stored as, beside float and int8_t.
#pragma once

#include <cstdint>

namespace scalpel {

struct Float16 {
  uint16_t bits;
};

// The upper half of a float32.
struct Bfloat16 {
  uint16_t bits;
};

}  // namespace scalpel
