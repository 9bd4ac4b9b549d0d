// AVX-512 (F, BW, DQ, VL) with VNNI under the names that the kernels of quantized layers use.
//
// Included by avx512_vnni.cpp only; all of it has internal linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace scalpel {
namespace {

struct Avx512Vnni {
  // 16 bytes.
  using Bytes = __m128i;
  static Bytes zero16() { return _mm_setzero_si128(); }
  static Bytes load16(const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
  static void store16(uint8_t* to, Bytes v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v); }
  static Bytes flip16(Bytes v, uint8_t bits) { return _mm_xor_si128(v, _mm_set1_epi8(static_cast<char>(bits))); }
  static Bytes interleave_low16(Bytes a, Bytes b) { return _mm_unpacklo_epi8(a, b); }
  static Bytes interleave_high16(Bytes a, Bytes b) { return _mm_unpackhi_epi8(a, b); }

  using Int = __m512i;
  using Float = __m512;
  static constexpr int kLanes = 16;
  static constexpr bool kHasByteMasks = true;

  static int32_t activation(uint8_t byte) { return byte; }

  static Int set8(int value) { return _mm512_set1_epi8(static_cast<char>(value)); }
  static Int set16(int16_t value) { return _mm512_set1_epi16(value); }
  static Int set32(int32_t value) { return _mm512_set1_epi32(value); }
  static Float set(float value) { return _mm512_set1_ps(value); }
  static Float broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static Float load(const float* from) { return _mm512_loadu_ps(from); }
  static Int load32(const int32_t* from) { return _mm512_loadu_si512(from); }
  static void store(float* to, Float v) { _mm512_storeu_ps(to, v); }
  static void store(int32_t* to, Int v) { _mm512_storeu_si512(to, v); }

  // 64 pixels of an input.
  static Int load_row(const uint8_t* from) { return _mm512_loadu_si512(from); }
  static void store_row(uint8_t* to, Int v) { _mm512_storeu_si512(to, v); }
  static Int load_masked(const uint8_t* from, uint64_t mask, Int fill) { return _mm512_mask_loadu_epi8(fill, mask, from); }
  // Bits of the bytes i with 0 <= first + i < size.
  static uint64_t bytes_inside(int64_t first, int64_t size) {
    const int64_t begin = first < 0 ? (-first < 64 ? -first : 64) : 0;
    const int64_t end = size - first < 64 ? (size > first ? size - first : 0) : 64;
    return begin < end ? bytes(end) & ~bytes(begin) : 0;
  }
  // Bytes 0, 2, 4, ... of two vectors in a row.
  static Int even(Int low, Int high) {
    const __m256i last = _mm512_cvtepi16_epi8(high);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(low)), last, 1);
  }
  static Int even(Int v) { return _mm512_castsi256_si512(_mm512_cvtepi16_epi8(v)); }
  // The first 16 * kVectors bytes, spread over the four quarters.
  template <int kVectors>
  static Int spread_tile(Int v) {
    return kVectors == 4 ? v : _mm512_maskz_expand_epi32(quarters(kVectors), v);
  }
  template <int kVectors>
  static void store_tile(uint8_t* to, Int v, int64_t pixels) {
    if (kVectors < 4) v = _mm512_maskz_compress_epi32(quarters(kVectors), v);
    if (kVectors == 4 && pixels == 64) {
      _mm512_storeu_si512(to, v);
    } else {
      _mm512_mask_storeu_epi8(to, bytes(pixels), v);
    }
  }
  template <int kVectors>
  static Int load_tile(const uint8_t* from, int64_t pixels) {
    return spread_tile<kVectors>(_mm512_maskz_loadu_epi8(bytes(pixels), from));
  }

  static Int unpack_low8(Int a, Int b) { return _mm512_unpacklo_epi8(a, b); }
  static Int unpack_high8(Int a, Int b) { return _mm512_unpackhi_epi8(a, b); }
  static Int unpack_low16(Int a, Int b) { return _mm512_unpacklo_epi16(a, b); }
  static Int unpack_high16(Int a, Int b) { return _mm512_unpackhi_epi16(a, b); }

  // The quads of two vectors of pairs, as dot products take them.
  static Int quads_low(Int ab, Int cd) { return unpack_low16(ab, cd); }
  static Int quads_high(Int ab, Int cd) { return unpack_high16(ab, cd); }

  // The four weights of a step for one of its `Rows` rows.
  template <int Rows>
  static Int weights(const int8_t* from, int row) {
    int32_t quad;
    __builtin_memcpy(&quad, from + row * kQuadBytes, sizeof quad);
    return _mm512_set1_epi32(quad);
  }
  static Int load_weights(const int8_t* from) { return _mm512_loadu_si512(from); }
  // In assembly, because GCC 12 copies the sums around the intrinsic at every step.
  static void dot(Int& sum, Int x, Int w) { __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w)); }

  // Each quad for as many lanes as a block has rows.
  template <int Height>
  static Int spread(const uint32_t* quads) {
    if constexpr (Height >= 16) {
      return set32(static_cast<int32_t>(quads[0]));
    } else if constexpr (Height == 8) {
      const __m256i high = _mm256_set1_epi32(static_cast<int32_t>(quads[1]));
      return _mm512_inserti64x4(set32(static_cast<int32_t>(quads[0])), high, 1);
    } else if constexpr (Height == 4) {
      const Int order = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
      return _mm512_permutexvar_epi32(order, _mm512_castsi128_si512(four(quads)));
    } else if constexpr (Height == 2) {
      const Int order = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
      const __m256i eight = _mm256_inserti128_si256(_mm256_castsi128_si256(four(quads)), four(quads + 4), 1);
      return _mm512_permutexvar_epi32(order, _mm512_castsi256_si512(eight));
    } else {
      const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(four(quads)), four(quads + 4), 1);
      const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(four(quads + 8)), four(quads + 12), 1);
      return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
  }
  // Lanes whose distance is a multiple of Height added up in the first Height lanes.
  template <int Height>
  static Int fold(Int v) {
    if (Height < 16) v = add32(v, _mm512_shuffle_i64x2(v, v, 0x4e));
    if (Height < 8) v = add32(v, _mm512_shuffle_i64x2(v, v, 0xb1));
    if (Height < 4) v = add32(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC));
    if (Height < 2) v = add32(v, _mm512_shuffle_epi32(v, _MM_PERM_CDAB));
    return v;
  }

  // Lane j of v[i] and lane i of v[j] change places.
  static void transpose(Int (&v)[16]) {
    Int t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
      t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    // v[4 * i + j]: rows 4 * i to 4 * i + 3 of the columns that are j modulo 4.
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
      v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
      v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
      v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // The same of quarters.
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      t[j] = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x44);
      t[4 + j] = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x44);
      t[8 + j] = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xee);
      t[12 + j] = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xee);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      v[j] = _mm512_shuffle_i32x4(t[j], t[4 + j], 0x88);
      v[4 + j] = _mm512_shuffle_i32x4(t[j], t[4 + j], 0xdd);
      v[8 + j] = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0x88);
      v[12 + j] = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0xdd);
    }
  }

  static void make_unknown(Int& v) { __asm__("" : "+v"(v)); }
  static Int add32(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int add16(Int a, Int b) { return _mm512_adds_epi16(a, b); }
  static Int pack32(Int a, Int b) { return _mm512_packs_epi32(a, b); }
  static Int pack16_signed(Int a, Int b) { return _mm512_packs_epi16(a, b); }
  static Int pack16_unsigned(Int a, Int b) { return _mm512_packus_epi16(a, b); }
  static Int clamp_signed(Int v, Int min, Int max) { return _mm512_min_epi8(_mm512_max_epi8(v, min), max); }
  static Int clamp_unsigned(Int v, Int min, Int max) { return _mm512_min_epu8(_mm512_max_epu8(v, min), max); }
  static Int flip(Int v, uint8_t bits) { return flip(v, set8(bits)); }
  static Int flip(Int v, Int bits) { return _mm512_xor_si512(v, bits); }

  static Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
  static Int round(Float v) { return _mm512_cvtps_epi32(v); }
  static Float round_float(Float v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  // The second operand of max and min is the result where either is NaN, which becomes a bound ...
  static Float at_least(Float v, Float min) { return _mm512_max_ps(v, min); }
  static Float at_most(Float v, Float max) { return _mm512_min_ps(v, max); }
  // ... or stays.
  static Float clamp(Float v, Float min, Float max) { return _mm512_min_ps(max, _mm512_max_ps(min, v)); }

 private:
  static constexpr __mmask16 quarters(int vectors) { return static_cast<__mmask16>(0x1111 * ((1 << vectors) - 1)); }
  static __mmask64 bytes(int64_t count) { return _bzhi_u64(~uint64_t{0}, static_cast<unsigned>(count)); }
  static __m128i four(const uint32_t* quads) {
    return _mm_setr_epi32(static_cast<int32_t>(quads[0]), static_cast<int32_t>(quads[1]), static_cast<int32_t>(quads[2]),
                          static_cast<int32_t>(quads[3]));
  }
};

}  // namespace
}  // namespace scalpel
