// Reading and copying memory in a row, `passes` times over, as what the kernels' traffic is compared with.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

// The sum of what was read.
template <typename Simd>
float read_stream(const float* from, int64_t count, int64_t passes) {
  typename Simd::Vector sums[kStreamVectors];
  for (auto& sum : sums) sum = Simd::zero();
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t i = 0; i < count; i += kStreamVectors * Simd::kLanes) {
#pragma GCC unroll 8
      for (int j = 0; j < kStreamVectors; ++j) sums[j] = Simd::add(sums[j], Simd::load(from + i + j * Simd::kLanes));
    }
  }
  for (int j = 1; j < kStreamVectors; ++j) sums[0] = Simd::add(sums[0], sums[j]);
  float lanes[Simd::kLanes];
  Simd::store(lanes, sums[0]);
  float total = 0;
  for (const float lane : lanes) total += lane;
  return total;
}

template <typename Simd>
void copy_stream(const float* from, int64_t count, float* to, int64_t passes) {
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t i = 0; i < count; i += kStreamVectors * Simd::kLanes) {
#pragma GCC unroll 8
      for (int j = 0; j < kStreamVectors; ++j) {
        const int64_t at = i + j * Simd::kLanes;
        Simd::store(to + at, Simd::load(from + at));
      }
    }
  }
}

}  // namespace
}  // namespace scalpel
