// NEON (Advanced SIMD of AArch64) under the names that the generic kernels use.
//
// Included by neon.cpp only; all of it has internal linkage.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <type_traits>

#include "kernels/value_types.h"

namespace scalpel {
namespace {

// The lanes whose bits are set, lane 0 the lowest.
constexpr uint32_t kAll = ~0u;
alignas(16) constexpr uint32_t kLanesOfBits[16][4] = {
    {0, 0, 0, 0},       {kAll, 0, 0, 0},       {0, kAll, 0, 0},       {kAll, kAll, 0, 0},
    {0, 0, kAll, 0},    {kAll, 0, kAll, 0},    {0, kAll, kAll, 0},    {kAll, kAll, kAll, 0},
    {0, 0, 0, kAll},    {kAll, 0, 0, kAll},    {0, kAll, 0, kAll},    {kAll, kAll, 0, kAll},
    {0, 0, kAll, kAll}, {kAll, 0, kAll, kAll}, {0, kAll, kAll, kAll}, {kAll, kAll, kAll, kAll},
};

struct NeonPair;

struct Neon {
  using Vector = float32x4_t;
  static constexpr int kLanes = 4;

  // A vector of rows.
  template <int Rows>
  using Column = std::conditional_t<Rows == 8, NeonPair, Neon>;

  // 32 registers hold rows × vectors sums, the vectors of activations and the weights of a step, four to a register.
  static constexpr int tile_rows(int block_rows, int) { return block_rows; }

  // It takes 8 sums to hide the latency of a multiply-add.
  static constexpr int steps_at_once(int rows, int vectors) {
    constexpr int kMostSums = 16;
    return rows * vectors * 4 <= kMostSums ? 4 : rows * vectors * 2 <= kMostSums ? 2 : 1;
  }

  // A step of a tile is some 30 instructions, of which a processor that executes out of order sees the next ones in
  // time; to fetch ahead would be every tenth instruction.
  static constexpr bool fetches_ahead(int) { return false; }
  static constexpr bool kFetchesWeightsAhead = false;

  static constexpr int kDepthwiseRows = 4;  // of a tile

  static Vector zero() { return vdupq_n_f32(0.0f); }
  static Vector set(float value) { return vdupq_n_f32(value); }
  static Vector broadcast(const float* from) { return vld1q_dup_f32(from); }
  static Vector load(const float* from) { return vld1q_f32(from); }
  static Vector load(const Float16* from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(from))));
  }
  static Vector load(const Bfloat16* from) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(from)), 16));
  }
  static Vector load(const int8_t* from) {
    int32_t bytes;
    __builtin_memcpy(&bytes, from, sizeof bytes);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
  }
  static float widen(float value) { return value; }
  static float widen(int8_t value) { return static_cast<float>(value); }
  static float widen(Float16 value) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(value.bits))), 0);
  }
  static float widen(Bfloat16 value) {
    return vgetq_lane_f32(vreinterpretq_f32_u32(vshll_n_u16(vdup_n_u16(value.bits), 16)), 0);
  }
  static void store(float* to, Vector v) { vst1q_f32(to, v); }

  // Weights four to a register: a multiply-add takes one of them by its lane.
  template <int Count>
  struct Weights {
    Vector vectors[(Count + 3) / 4];
  };
  template <int Count>
  static Weights<Count> kept_weights(const float* from) {
    Weights<Count> weights;
#pragma GCC unroll 8
    for (int i = 0; i < Count / 4; ++i) weights.vectors[i] = load(from + 4 * i);
    if constexpr (Count % 4 != 0) weights.vectors[Count / 4] = load_first(from + Count / 4 * 4, Count % 4);
    return weights;
  }
  template <int Count>
  static auto step_weights(const float* from) {
    return kept_weights<Count>(from);
  }
  template <int Count>
  static Vector weight(const Weights<Count>& weights, int i) {
    const Vector four = weights.vectors[i / 4];
    return vdupq_n_f32(four[i % 4]);
  }

  // Elements 0, 2, 4, ... of two vectors in a row.
  static Vector even(Vector low, Vector high) { return vuzp1q_f32(low, high); }
  static Vector odd(Vector low, Vector high) { return vuzp2q_f32(low, high); }
  // The elements of two vectors in a row from number `Begin` on.
  template <int Begin>
  static Vector slide(Vector low, Vector high) {
    return vextq_f32(low, high, Begin);
  }
  static Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
  static Vector multiply(Vector a, Vector b) { return vmulq_f32(a, b); }
  static Vector divide(Vector a, Vector b) { return vdivq_f32(a, b); }
  static Vector round(Vector v) { return vrndnq_f32(v); }
  // `n` are integers from -126 to 128, which makes infinity.
  static Vector times_power_of_two(Vector v, Vector n) {
    const int32x4_t exponents = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return multiply(v, vreinterpretq_f32_s32(vshlq_n_s32(exponents, 23)));
  }
  static Vector sqrt(Vector v) { return vsqrtq_f32(v); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }

  // NaN where either is.
  static Vector at_least(Vector v, Vector min) { return vmaxq_f32(min, v); }
  static Vector at_most(Vector v, Vector max) { return vminq_f32(max, v); }
  static Vector clamp(Vector v, Vector min, Vector max) { return at_most(at_least(v, min), max); }

  // There are no masked loads. The first floats of a vector are read in pieces; what lies inside a row of four or more
  // is taken from a whole vector inside that row.
  static constexpr bool kHasMaskedLoads = false;
  struct First {
    int count;
  };
  // Lanes [0, end).
  static First lanes(int, int end) { return {end}; }
  static Vector load_masked(const float* from, First lanes) { return load_first(from, lanes.count); }
  struct Mask {
    int64_t shift;     // floats from the beginning of the vector to that of one inside the row
    uint8x16_t bytes;  // to take from that one; those beyond its end are zero
  };
  // Lanes l with 0 <= first + l < size, of a row of `size` floats.
  static Mask lanes_of_row(int64_t first, int64_t size) {
    alignas(16) static constexpr uint8_t kBytes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int64_t inside = first < 0 ? 0 : first > size - kLanes ? size - kLanes : first, shift = inside - first;
    const int64_t lanes = shift < -kLanes ? -kLanes : shift > kLanes ? kLanes : shift;
    return {shift, vsubq_u8(vld1q_u8(kBytes), vdupq_n_u8(static_cast<uint8_t>(4 * lanes)))};
  }
  // Zero in the other lanes.
  static Vector load_masked(const float* from, const Mask& mask) {
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(load(from + mask.shift)), mask.bytes));
  }
  static Vector load_first(const float* from, int count) {
    if (count == kLanes) return load(from);
    float32x2_t low = vdup_n_f32(0.0f), high = low;
    if ((count & 2) != 0) {
      low = vld1_f32(from);
      if ((count & 1) != 0) high = vld1_lane_f32(from + 2, high, 0);
    } else if (count != 0) {
      low = vld1_lane_f32(from, low, 0);
    }
    return vcombine_f32(low, high);
  }
  // The lanes whose bits are set, zero in the others; of a vector that may be read as a whole.
  static Vector keep(Vector v, uint16_t bits) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vld1q_u32(kLanesOfBits[bits])));
  }
  // The same of a vector of which the other lanes may not be read.
  static Vector load_kept(const float* from, uint16_t bits) {
    Vector v = zero();
#pragma GCC unroll 4
    for (int i = 0; i < kLanes; ++i) {
      if ((bits >> i & 1) != 0) v[i] = from[i];
    }
    return v;
  }

  static void store_first(float* to, Vector v, int count) {
    if (count == kLanes) return store(to, v);
    float32x2_t rest = vget_low_f32(v);
    if ((count & 2) != 0) {
      vst1_f32(to, rest);
      rest = vget_high_f32(v);
      to += 2;
    }
    if ((count & 1) != 0) vst1_lane_f32(to, rest, 0);
  }

  // The sum of each of 8 vectors.
  static void sum_each(const Vector* v, float* sums) {
    vst1q_f32(sums, vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
    vst1q_f32(sums + 4, vpaddq_f32(vpaddq_f32(v[4], v[5]), vpaddq_f32(v[6], v[7])));
  }

  template <typename Index>
  static Vector gather(const float* x, const Index* indices) {
    const Vector v = {x[indices[0]], x[indices[1]], x[indices[2]], x[indices[3]]};
    return v;
  }

  static void transpose(Vector* v) {
    const Vector a = vtrn1q_f32(v[0], v[1]), b = vtrn2q_f32(v[0], v[1]);
    const Vector c = vtrn1q_f32(v[2], v[3]), d = vtrn2q_f32(v[2], v[3]);
    const auto halves = [](Vector x) { return vreinterpretq_f64_f32(x); };
    v[0] = vreinterpretq_f32_f64(vtrn1q_f64(halves(a), halves(c)));
    v[1] = vreinterpretq_f32_f64(vtrn1q_f64(halves(b), halves(d)));
    v[2] = vreinterpretq_f32_f64(vtrn2q_f64(halves(a), halves(c)));
    v[3] = vreinterpretq_f32_f64(vtrn2q_f64(halves(b), halves(d)));
  }
};

// Two registers as one vector of 8: one index for 8 weights.
struct NeonPair {
  struct Vector {
    float32x4_t low, high;
  };
  static constexpr int kLanes = 8;

  static Vector zero() { return {Neon::zero(), Neon::zero()}; }
  static Vector broadcast(const float* from) {
    const float32x4_t v = Neon::broadcast(from);
    return {v, v};
  }
  template <typename Value>
  static Vector load(const Value* from) {
    return {Neon::load(from), Neon::load(from + 4)};
  }
  static void store(float* to, Vector v) {
    Neon::store(to, v.low);
    Neon::store(to + 4, v.high);
  }
  static Vector add(Vector a, Vector b) { return {Neon::add(a.low, b.low), Neon::add(a.high, b.high)}; }
  static Vector multiply_add(Vector a, Vector b, Vector c) {
    return {Neon::multiply_add(a.low, b.low, c.low), Neon::multiply_add(a.high, b.high, c.high)};
  }

  // The sum of each of 8 vectors.
  static void sum_each(const Vector* v, float* sums) {
    float32x4_t halves[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) halves[i] = Neon::add(v[i].low, v[i].high);
    Neon::sum_each(halves, sums);
  }
};

}  // namespace
}  // namespace scalpel
