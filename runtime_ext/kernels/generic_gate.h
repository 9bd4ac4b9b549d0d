// Gates: y * gate(y), in place, of results that have just been written and are still in a cache.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstdint>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

// e^x to 2 units in the last place, of x from -87, where what is less counts as that, to 88; infinite from 89 on.
template <typename Simd>
typename Simd::Vector exponential(typename Simd::Vector x) {
  using Vector = typename Simd::Vector;
  x = Simd::clamp(x, Simd::set(-87.0f), Simd::set(89.0f));
  // x = n ln 2 + f, the first product exact.
  const Vector n = Simd::round(Simd::multiply(x, Simd::set(1.44269504f)));
  Vector f = Simd::multiply_add(n, Simd::set(-0.693359375f), x);
  f = Simd::multiply_add(n, Simd::set(2.12194440e-4f), f);
  // Taylor's series: |f| is at most ln(2) / 2, and the first term left out 4e-9.
  constexpr float kTaylor[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  Vector power = Simd::set(kTaylor[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 8; ++i) power = Simd::multiply_add(power, f, Simd::set(kTaylor[i]));
  return Simd::times_power_of_two(power, n);
}

template <typename Simd, Gate kGate>
typename Simd::Vector gated_vector(typename Simd::Vector y) {
  using Vector = typename Simd::Vector;
  const Vector zero = Simd::zero(), one = Simd::set(1.0f), negative = Simd::multiply(y, Simd::set(-1.0f));
  if constexpr (kGate == Gate::kHardSwish) {
    return Simd::multiply(
        y, Simd::clamp(Simd::multiply_add(y, Simd::set(1.0f / 6.0f), Simd::set(0.5f)), zero, one));
  } else if constexpr (kGate == Gate::kSilu) {
    return Simd::divide(y, Simd::add(one, exponential<Simd>(negative)));
  } else {
    // max(y, 0) - |y| * (1 - erf(|y| / sqrt(2))) / 2, erf by Abramowitz and Stegun, 7.1.26: to 1.5e-7.
    const Vector size = Simd::at_least(y, negative);
    const Vector t = Simd::divide(one, Simd::multiply_add(size, Simd::set(0.3275911f * 0.70710678f), one));
    constexpr float kTail[] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f, 0.0f};
    Vector tail = Simd::set(kTail[0]);
#pragma GCC unroll 8
    for (int i = 1; i < 6; ++i) tail = Simd::multiply_add(tail, t, Simd::set(kTail[i]));
    const Vector bell = exponential<Simd>(Simd::multiply(Simd::multiply(y, y), Simd::set(-0.5f)));
    const Vector outside = Simd::multiply(Simd::multiply(tail, bell), Simd::set(-0.5f));
    return Simd::multiply_add(size, outside, Simd::at_least(y, zero));
  }
}

template <typename Simd, Gate kGate>
void gate_rows(const GateCall& call) {
  constexpr int64_t kLanes = Simd::kLanes;
  for (int64_t row = 0; row < call.rows; ++row) {
    float* y = call.Y + row * call.ld;
    int64_t i = 0;
    for (; i + kLanes <= call.columns; i += kLanes) {
      Simd::store(y + i, gated_vector<Simd, kGate>(Simd::load(y + i)));
    }
    if (i < call.columns) {
      const int rest = static_cast<int>(call.columns - i);
      Simd::store_first(y + i, gated_vector<Simd, kGate>(Simd::load_first(y + i, rest)), rest);
    }
  }
}

template <typename Simd>
void gate(const GateCall& call) {
  switch (call.gate) {
    case Gate::kNone:
      return;
    case Gate::kHardSwish:
      return gate_rows<Simd, Gate::kHardSwish>(call);
    case Gate::kSilu:
      return gate_rows<Simd, Gate::kSilu>(call);
    case Gate::kGelu:
      return gate_rows<Simd, Gate::kGelu>(call);
  }
}

}  // namespace
}  // namespace scalpel
