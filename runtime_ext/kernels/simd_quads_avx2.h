// AVX2 and FMA under the names that the kernels of quantized layers use, but for the dot products.
//
// Included by avx2_quads.cpp and avx_vnni.cpp only; all of it has internal linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace scalpel {
namespace {

struct Avx2Quads {
  using Int = __m256i;
  using Float = __m256;
  static constexpr int kLanes = 8;
  static constexpr bool kHasByteMasks = false;
  static constexpr uint64_t kAllBytes = 0xffffffff;

  // 16 bytes.
  using Bytes = __m128i;
  static Bytes zero16() { return _mm_setzero_si128(); }
  static Bytes load16(const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
  static void store16(uint8_t* to, Bytes v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v); }
  static Bytes flip16(Bytes v, uint8_t bits) { return _mm_xor_si128(v, _mm_set1_epi8(static_cast<char>(bits))); }
  static Bytes interleave_low16(Bytes a, Bytes b) { return _mm_unpacklo_epi8(a, b); }
  static Bytes interleave_high16(Bytes a, Bytes b) { return _mm_unpackhi_epi8(a, b); }

  static int32_t activation(uint8_t byte) { return byte; }

  static Int set8(int value) { return _mm256_set1_epi8(static_cast<char>(value)); }
  static Int set16(int16_t value) { return _mm256_set1_epi16(value); }
  static Int set32(int32_t value) { return _mm256_set1_epi32(value); }
  static Float set(float value) { return _mm256_set1_ps(value); }
  static Float broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Float load(const float* from) { return _mm256_loadu_ps(from); }
  static Int load32(const int32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static void store(float* to, Float v) { _mm256_storeu_ps(to, v); }
  static void store(int32_t* to, Int v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }

  // 32 pixels of an input.
  static Int load_row(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static void store_row(uint8_t* to, Int v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
  // `fill` in the bytes without a bit of the mask.
  static Int keep(Int v, uint64_t mask, Int fill) {
    const Int byte_of = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3,
                                         3, 3, 3, 3);
    const Int bit_of = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
    const Int bits = _mm256_shuffle_epi8(set32(static_cast<int32_t>(mask)), byte_of);
    const Int kept = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit_of), bit_of);
    return _mm256_blendv_epi8(fill, v, kept);
  }
  // The first 8 * kVectors bytes, spread over the two halves.
  template <int kVectors>
  static Int spread_tile(Int v) {
    if constexpr (kVectors == 4) return v;
    uint8_t bytes[48];
    store_row(bytes, v);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(bytes)), load16(bytes + 4 * kVectors), 1);
  }
  template <int kVectors>
  static void store_tile(uint8_t* to, Int v, int64_t pixels) {
    if (kVectors == 4 && pixels == 32) return store_row(to, v);
    uint8_t bytes[48];
    store16(bytes, _mm256_castsi256_si128(v));
    store16(bytes + 4 * kVectors, _mm256_extracti128_si256(v, 1));
    for (int64_t i = 0; i < pixels; ++i) to[i] = bytes[i];
  }
  template <int kVectors>
  static Int load_tile(const uint8_t* from, int64_t pixels) {
    if (kVectors == 4 && pixels == 32) return load_row(from);
    uint8_t bytes[32] = {};
    for (int64_t i = 0; i < pixels; ++i) bytes[i] = from[i];
    return spread_tile<kVectors>(load_row(bytes));
  }

  static Int unpack_low8(Int a, Int b) { return _mm256_unpacklo_epi8(a, b); }
  static Int unpack_high8(Int a, Int b) { return _mm256_unpackhi_epi8(a, b); }
  static Int unpack_low16(Int a, Int b) { return _mm256_unpacklo_epi16(a, b); }
  static Int unpack_high16(Int a, Int b) { return _mm256_unpackhi_epi16(a, b); }

  // The quads of two vectors of pairs, as dot products take them.
  static Int quads_low(Int ab, Int cd) { return unpack_low16(ab, cd); }
  static Int quads_high(Int ab, Int cd) { return unpack_high16(ab, cd); }

  static Int weight_quad(const int8_t* from) {
    int32_t quad;
    __builtin_memcpy(&quad, from, sizeof quad);
    return _mm256_set1_epi32(quad);
  }
  static Int eight_quads(const int8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

  // Each quad for as many lanes as a block has rows.
  template <int Height>
  static Int spread(const uint32_t* quads) {
    if constexpr (Height >= 8) {
      return set32(static_cast<int32_t>(quads[0]));
    } else if constexpr (Height == 4) {
      return _mm256_setr_m128i(_mm_set1_epi32(static_cast<int32_t>(quads[0])), _mm_set1_epi32(static_cast<int32_t>(quads[1])));
    } else if constexpr (Height == 2) {
      const Int order = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
      return _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(four(quads)), order);
    } else {
      return _mm256_setr_m128i(four(quads), four(quads + 4));
    }
  }
  // Lanes whose distance is a multiple of Height added up in the first Height lanes.
  template <int Height>
  static Int fold(Int v) {
    if (Height < 8) v = add32(v, _mm256_permute2x128_si256(v, v, 1));
    if (Height < 4) v = add32(v, _mm256_shuffle_epi32(v, 0x4e));
    if (Height < 2) v = add32(v, _mm256_shuffle_epi32(v, 0xb1));
    return v;
  }

  // Lane j of v[i] and lane i of v[j] change places.
  static void transpose(Int (&v)[8]) {
    Int t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    // v[4 * i + j]: rows 4 * i to 4 * i + 3 of the columns that are j modulo 4.
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      v[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
      v[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
      v[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
      v[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      t[j] = _mm256_permute2x128_si256(v[j], v[4 + j], 0x20);
      t[4 + j] = _mm256_permute2x128_si256(v[j], v[4 + j], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = t[i];
  }

  static void make_unknown(Int& v) { __asm__("" : "+x"(v)); }
  static Int add32(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int add16(Int a, Int b) { return _mm256_adds_epi16(a, b); }
  static Int pack32(Int a, Int b) { return _mm256_packs_epi32(a, b); }
  static Int pack16_signed(Int a, Int b) { return _mm256_packs_epi16(a, b); }
  static Int pack16_unsigned(Int a, Int b) { return _mm256_packus_epi16(a, b); }
  static Int clamp_signed(Int v, Int min, Int max) { return _mm256_min_epi8(_mm256_max_epi8(v, min), max); }
  static Int clamp_unsigned(Int v, Int min, Int max) { return _mm256_min_epu8(_mm256_max_epu8(v, min), max); }
  static Int flip(Int v, uint8_t bits) { return flip(v, set8(bits)); }
  static Int flip(Int v, Int bits) { return _mm256_xor_si256(v, bits); }

  static Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
  static Int round(Float v) { return _mm256_cvtps_epi32(v); }
  static Float round_float(Float v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float multiply_add(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  // The second operand of max and min is the result where either is NaN, which becomes a bound ...
  static Float at_least(Float v, Float min) { return _mm256_max_ps(v, min); }
  static Float at_most(Float v, Float max) { return _mm256_min_ps(v, max); }
  // ... or stays.
  static Float clamp(Float v, Float min, Float max) { return _mm256_min_ps(max, _mm256_max_ps(min, v)); }

 private:
  static __m128i four(const uint32_t* quads) {
    return _mm_setr_epi32(static_cast<int32_t>(quads[0]), static_cast<int32_t>(quads[1]), static_cast<int32_t>(quads[2]),
                          static_cast<int32_t>(quads[3]));
  }
};

}  // namespace
}  // namespace scalpel
