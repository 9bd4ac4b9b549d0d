// What lets one header serve nvcc and a plain C++ compiler: the kernels' index logic is tested on the host.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define SCALPEL_BOTH __host__ __device__
#else
#define SCALPEL_BOTH
#endif
#if defined(__CUDA_ARCH__)
#define SCALPEL_UNROLL _Pragma("unroll")
#define SCALPEL_UNROLL_BY_4 _Pragma("unroll 4")
#else
#define SCALPEL_UNROLL
#define SCALPEL_UNROLL_BY_4
#endif

#include "kernels/value_types.h"

namespace scalpel {

// Elements that are read at once.
template <typename Element, int kCount>
struct alignas(sizeof(Element) * kCount) Packet {
  Element at[kCount];
};

SCALPEL_BOTH inline float to_float(float value) { return value; }

SCALPEL_BOTH inline float to_float(Float16 value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t sign = (value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
  uint32_t bits = 0;
  float result = 0;
  if (magnitude < 0x0400u) {  // zero or subnormal: a multiple of 2^-24
    result = static_cast<float>(magnitude) * 0x1p-24f;
    std::memcpy(&bits, &result, sizeof bits);
  } else {
    bits = (magnitude << 13) + (magnitude < 0x7c00u ? (127u - 15u) << 23 : (255u - 31u) << 23);
  }
  bits |= sign;
  std::memcpy(&result, &bits, sizeof result);
  return result;
#endif
}

}  // namespace scalpel
