// NEON under the names that the kernels of quantized layers use, but for the dot products.
//
// Included by neon_quads.cpp and neon_dotprod.cpp only; all of it has internal linkage.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace scalpel {
namespace {

struct NeonQuads {
  using Int = int32x4_t;
  using Float = float32x4_t;
  static constexpr int kLanes = 4;
  static constexpr bool kHasByteMasks = false;
  static constexpr uint64_t kAllBytes = 0xffff;

  // 16 bytes.
  using Bytes = uint8x16_t;
  static Bytes zero16() { return vdupq_n_u8(0); }
  static Bytes load16(const uint8_t* from) { return vld1q_u8(from); }
  static void store16(uint8_t* to, Bytes v) { vst1q_u8(to, v); }
  static Bytes flip16(Bytes v, uint8_t bits) { return veorq_u8(v, vdupq_n_u8(bits)); }
  static Bytes interleave_low16(Bytes a, Bytes b) { return vzip1q_u8(a, b); }
  static Bytes interleave_high16(Bytes a, Bytes b) { return vzip2q_u8(a, b); }

  // Both sides of the dot products are signed.
  static int32_t activation(uint8_t byte) { return static_cast<int8_t>(byte); }

  static Int set8(int value) { return vreinterpretq_s32_s8(vdupq_n_s8(static_cast<int8_t>(value))); }
  static Int set16(int16_t value) { return vreinterpretq_s32_s16(vdupq_n_s16(value)); }
  static Int set32(int32_t value) { return vdupq_n_s32(value); }
  static Float set(float value) { return vdupq_n_f32(value); }
  static Float broadcast(const float* from) { return vld1q_dup_f32(from); }
  static Float load(const float* from) { return vld1q_f32(from); }
  static Int load32(const int32_t* from) { return vld1q_s32(from); }
  static void store(float* to, Float v) { vst1q_f32(to, v); }
  static void store(int32_t* to, Int v) { vst1q_s32(to, v); }

  // 16 pixels of an input.
  static Int load_row(const uint8_t* from) { return vreinterpretq_s32_u8(vld1q_u8(from)); }
  static void store_row(uint8_t* to, Int v) { vst1q_u8(to, vreinterpretq_u8_s32(v)); }
  // `fill` in the bytes without a bit of the mask.
  static Int keep(Int v, uint64_t mask, Int fill) {
    alignas(16) static constexpr uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x8_t low = vdup_n_u8(static_cast<uint8_t>(mask)), high = vdup_n_u8(static_cast<uint8_t>(mask >> 8));
    const uint8x16_t kept = vtstq_u8(vcombine_u8(low, high), vld1q_u8(kBits));
    return vreinterpretq_s32_u8(vbslq_u8(kept, vreinterpretq_u8_s32(v), vreinterpretq_u8_s32(fill)));
  }
  // A tile is one group of 16 bytes: its pixels lie in order whatever their number.
  template <int>
  static Int spread_tile(Int v) {
    return v;
  }
  template <int>
  static void store_tile(uint8_t* to, Int v, int64_t pixels) {
    if (pixels == 16) return store_row(to, v);
    const uint8x16_t bytes = vreinterpretq_u8_s32(v);
    uint8x8_t rest = vget_low_u8(bytes);
    if ((pixels & 8) != 0) {
      vst1_u8(to, rest);
      rest = vget_high_u8(bytes);
      to += 8;
    }
    if ((pixels & 4) != 0) {
      const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(rest), 0);
      __builtin_memcpy(to, &four, sizeof four);
      rest = vext_u8(rest, rest, 4);
      to += 4;
    }
    if ((pixels & 2) != 0) {
      const uint16_t two = vget_lane_u16(vreinterpret_u16_u8(rest), 0);
      __builtin_memcpy(to, &two, sizeof two);
      rest = vext_u8(rest, rest, 2);
      to += 2;
    }
    if ((pixels & 1) != 0) *to = vget_lane_u8(rest, 0);
  }
  template <int>
  static Int load_tile(const uint8_t* from, int64_t pixels) {
    if (pixels == 16) return load_row(from);
    uint8_t bytes[16] = {};
    for (int64_t i = 0; i < pixels; ++i) bytes[i] = from[i];
    return load_row(bytes);
  }

  static Int unpack_low8(Int a, Int b) {
    return vreinterpretq_s32_s8(vzip1q_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)));
  }
  static Int unpack_high8(Int a, Int b) {
    return vreinterpretq_s32_s8(vzip2q_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)));
  }
  static Int unpack_low16(Int a, Int b) {
    return vreinterpretq_s32_s16(vzip1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
  }
  static Int unpack_high16(Int a, Int b) {
    return vreinterpretq_s32_s16(vzip2q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
  }

  // Each quad for as many lanes as a block has rows.
  template <int Height>
  static Int spread(const uint32_t* quads) {
    if constexpr (Height >= 4) {
      return vreinterpretq_s32_u32(vdupq_n_u32(quads[0]));
    } else if constexpr (Height == 2) {
      return vreinterpretq_s32_u32(vcombine_u32(vdup_n_u32(quads[0]), vdup_n_u32(quads[1])));
    } else {
      return vreinterpretq_s32_u32(vld1q_u32(quads));
    }
  }
  // Lanes whose distance is a multiple of Height added up in the first Height lanes.
  template <int Height>
  static Int fold(Int v) {
    if (Height < 4) v = add32(v, vextq_s32(v, v, 2));
    if (Height < 2) v = vpaddq_s32(v, v);
    return v;
  }

  // Lane j of v[i] and lane i of v[j] change places.
  static void transpose(Int (&v)[4]) {
    const int64x2_t a = vreinterpretq_s64_s32(vzip1q_s32(v[0], v[1])), b = vreinterpretq_s64_s32(vzip2q_s32(v[0], v[1]));
    const int64x2_t c = vreinterpretq_s64_s32(vzip1q_s32(v[2], v[3])), d = vreinterpretq_s64_s32(vzip2q_s32(v[2], v[3]));
    v[0] = vreinterpretq_s32_s64(vzip1q_s64(a, c));
    v[1] = vreinterpretq_s32_s64(vzip2q_s64(a, c));
    v[2] = vreinterpretq_s32_s64(vzip1q_s64(b, d));
    v[3] = vreinterpretq_s32_s64(vzip2q_s64(b, d));
  }

  static void make_unknown(Int& v) { __asm__("" : "+w"(v)); }
  static Int add32(Int a, Int b) { return vaddq_s32(a, b); }
  static Int add16(Int a, Int b) {
    return vreinterpretq_s32_s16(vqaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
  }
  static Int pack32(Int a, Int b) { return vreinterpretq_s32_s16(vqmovn_high_s32(vqmovn_s32(a), b)); }
  static Int pack16_signed(Int a, Int b) {
    const int16x8_t low = vreinterpretq_s16_s32(a), high = vreinterpretq_s16_s32(b);
    return vreinterpretq_s32_s8(vqmovn_high_s16(vqmovn_s16(low), high));
  }
  static Int pack16_unsigned(Int a, Int b) {
    const int16x8_t low = vreinterpretq_s16_s32(a), high = vreinterpretq_s16_s32(b);
    return vreinterpretq_s32_u8(vqmovun_high_s16(vqmovun_s16(low), high));
  }
  static Int clamp_signed(Int v, Int min, Int max) {
    const int8x16_t raised = vmaxq_s8(vreinterpretq_s8_s32(v), vreinterpretq_s8_s32(min));
    return vreinterpretq_s32_s8(vminq_s8(raised, vreinterpretq_s8_s32(max)));
  }
  static Int clamp_unsigned(Int v, Int min, Int max) {
    const uint8x16_t raised = vmaxq_u8(vreinterpretq_u8_s32(v), vreinterpretq_u8_s32(min));
    return vreinterpretq_s32_u8(vminq_u8(raised, vreinterpretq_u8_s32(max)));
  }
  static Int flip(Int v, uint8_t bits) { return flip(v, set8(bits)); }
  static Int flip(Int v, Int bits) { return veorq_s32(v, bits); }

  static Float to_float(Int v) { return vcvtq_f32_s32(v); }
  static Int round(Float v) { return vcvtnq_s32_f32(v); }
  static Float round_float(Float v) { return vrndnq_f32(v); }
  static Float add(Float a, Float b) { return vaddq_f32(a, b); }
  static Float multiply(Float a, Float b) { return vmulq_f32(a, b); }
  static Float multiply_add(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
  // NaN becomes the bound ...
  static Float at_least(Float v, Float min) { return vmaxnmq_f32(v, min); }
  static Float at_most(Float v, Float max) { return vminnmq_f32(v, max); }
  // ... or stays, and so does a zero of either sign.
  static Float clamp(Float v, Float min, Float max) {
    const Float raised = vbslq_f32(vcltq_f32(v, min), min, v);
    return vbslq_f32(vcgtq_f32(raised, max), max, raised);
  }
};

}  // namespace
}  // namespace scalpel
