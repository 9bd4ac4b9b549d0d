// AVX-512 (F, BW, DQ, VL) under the names that the generic kernels use.
//
// Included by avx512.cpp only; all of it has internal linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/simd_avx2.h"

namespace scalpel {
namespace {

struct Avx512 {
  using Vector = __m512;
  using Mask = __mmask16;
  static constexpr int kLanes = 16;

  // A vector of rows.
  template <int Rows>
  using Column = Avx2::Column<Rows>;

  // 32 registers hold rows × vectors sums, the vectors of activations and one weight.
  static constexpr int tile_rows(int block_rows, int) { return block_rows; }

  // It takes 8 sums to hide the latency of a multiply-add.
  static constexpr int steps_at_once(int rows, int vectors) {
    constexpr int kMostSums = 16;
    return rows * vectors * 4 <= kMostSums ? 4 : rows * vectors * 2 <= kMostSums ? 2 : 1;
  }

  // Fetching ahead costs a load for each vector of activations, which few rows cannot spare.
  static constexpr bool fetches_ahead(int rows) { return rows >= 4; }
  static constexpr bool kFetchesWeightsAhead = true;

  static constexpr int kDepthwiseRows = 8;  // of a tile

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector set(float value) { return _mm512_set1_ps(value); }
  static Vector broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static Vector load(const Float16* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Vector load(const Bfloat16* from) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static Vector load(const int8_t* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
  template <typename Value>
  static float widen(Value value) {
    return Avx2::widen(value);
  }
  static void store(float* to, Vector v) { _mm512_storeu_ps(to, v); }
  // The weights of a step, and those that stay in registers.
  template <int Count>
  static const float* step_weights(const float* from) {
    return from;
  }
  static Vector weight(const float* weights, int i) { return broadcast(weights + i); }
  template <int Count>
  struct Weights {
    Vector vectors[Count];
  };
  template <int Count>
  static Weights<Count> kept_weights(const float* from) {
    Weights<Count> weights;
#pragma GCC unroll 25
    for (int i = 0; i < Count; ++i) weights.vectors[i] = broadcast(from + i);
    return weights;
  }
  template <int Count>
  static Vector weight(const Weights<Count>& weights, int i) {
    return weights.vectors[i];
  }

  // Elements 0, 2, 4, ... of two vectors in a row.
  static Vector even(Vector low, Vector high) {
    const __m512i lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(low, lanes, high);
  }
  static Vector odd(Vector low, Vector high) {
    const __m512i lanes = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(low, lanes, high);
  }
  // The elements of two vectors in a row from number `Begin` on.
  template <int Begin>
  static Vector slide(Vector low, Vector high) {
    const __m512i values = _mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), Begin);
    return _mm512_castsi512_ps(values);
  }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector round(Vector v) {
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static Vector times_power_of_two(Vector v, Vector n) { return _mm512_scalef_ps(v, n); }
  static Vector sqrt(Vector v) { return _mm512_sqrt_ps(v); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }

  // The second operand of max and min is the result where either is NaN.
  static Vector at_least(Vector v, Vector min) { return _mm512_max_ps(min, v); }
  static Vector at_most(Vector v, Vector max) { return _mm512_min_ps(max, v); }
  static Vector clamp(Vector v, Vector min, Vector max) { return at_most(at_least(v, min), max); }

  static constexpr bool kHasMaskedLoads = true;
  // Lanes [begin, end).
  static Mask lanes(int begin, int end) { return static_cast<Mask>((1u << end) - (1u << begin)); }
  // Those whose bits are set.
  static Mask lanes_of(uint16_t bits) { return bits; }
  // Zero in the other lanes, which are not read.
  static Vector load_masked(const float* from, Mask mask) { return _mm512_maskz_loadu_ps(mask, from); }
  static Vector load_first(const float* from, int count) { return load_masked(from, lanes(0, count)); }
  static void store_first(float* to, Vector v, int count) { _mm512_mask_storeu_ps(to, lanes(0, count), v); }

  // The sum of each of 8 vectors.
  static void sum_each(const Vector* v, float* sums) {
    __m256 halves[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      halves[i] = _mm256_add_ps(_mm512_castps512_ps256(v[i]), _mm512_extractf32x8_ps(v[i], 1));
    }
    Avx2::sum_each(halves, sums);
  }

  template <typename Index>
  static Vector gather(const float* x, const Index* indices) {
    const __m512 low = _mm512_castps256_ps512(Avx2::gather(x, indices));
    return _mm512_insertf32x8(low, Avx2::gather(x, indices + 8), 1);
  }

  // The four stages of a 16 × 16 transpose exchange lanes 1, 2, 4 and 8 apart.
  static void transpose(Vector* v) {
    Vector t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
      v[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
      v[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
      v[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      v[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    // Now v[4 i + j] holds column 4 q + j of rows 4 i to 4 i + 3 in its quarter q.
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 8) {
#pragma GCC unroll 16
      for (int j = 0; j < 4; ++j) {
        t[i + j] = _mm512_shuffle_f32x4(v[i + j], v[i + 4 + j], 0x88);
        t[i + 4 + j] = _mm512_shuffle_f32x4(v[i + j], v[i + 4 + j], 0xdd);
      }
    }
#pragma GCC unroll 16
    for (int j = 0; j < 8; ++j) {
      v[j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0x88);
      v[j + 8] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0xdd);
    }
  }
};

}  // namespace
}  // namespace scalpel
