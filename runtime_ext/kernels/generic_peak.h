// The multiply-add peak of one core, as what the kernels' rates are compared with.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

namespace scalpel {
namespace {

template <typename Simd>
double multiply_add(int64_t rounds, float* result) {
  using Vector = typename Simd::Vector;
  constexpr int kChains = 12;
  Vector sums[kChains];
  for (Vector& sum : sums) sum = Simd::set(*result);
  const Vector factor = Simd::set(0.5f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (Vector& sum : sums) sum = Simd::multiply_add(sum, factor, factor);
  }
  for (const Vector& sum : sums) sums[0] = Simd::add(sums[0], sum);
  float lanes[Simd::kLanes];
  Simd::store(lanes, sums[0]);
  *result = lanes[0];
  return static_cast<double>(rounds) * kChains * Simd::kLanes;
}

}  // namespace
}  // namespace scalpel
