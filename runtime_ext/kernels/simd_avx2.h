// AVX2 + FMA + F16C under the names that the generic kernels use.
//
// Included by the translation units of AVX2 and of what contains it only; all of it has internal linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "kernels/value_types.h"

namespace scalpel {
namespace {

alignas(32) constexpr int32_t kFirstLanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

// Half a register: the four rows of a column vector.
struct Avx2Half {
  using Vector = __m128;
  static constexpr int kLanes = 4;

  static Vector zero() { return _mm_setzero_ps(); }
  static Vector broadcast(const float* from) { return _mm_broadcast_ss(from); }
  static Vector load(const float* from) { return _mm_loadu_ps(from); }
  static Vector load(const Float16* from) {
    return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static Vector load(const Bfloat16* from) {
    const __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
    return _mm_castsi128_ps(_mm_slli_epi32(wide, 16));
  }
  static Vector load(const int8_t* from) {
    int32_t bytes;
    __builtin_memcpy(&bytes, from, sizeof bytes);
    return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(bytes)));
  }
  static void store(float* to, Vector v) { _mm_storeu_ps(to, v); }
  static Vector add(Vector a, Vector b) { return _mm_add_ps(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm_fmadd_ps(a, b, c); }
};

struct Avx2 {
  using Vector = __m256;
  using Mask = __m256i;
  static constexpr int kLanes = 8;

  // A vector of rows.
  template <int Rows>
  using Column = std::conditional_t<Rows == 8, Avx2, Avx2Half>;

  // Rows of a register tile: 16 registers hold rows × vectors sums, the vectors of activations and one weight, and
  // it takes 8 sums to hide the latency of a multiply-add.
  static constexpr int tile_rows(int block_rows, int vectors) {
    return block_rows == 8 && vectors > 1 ? 4 : block_rows;
  }

  static constexpr int steps_at_once(int rows, int vectors) {
    constexpr int kMostSums = 12;
    return rows * vectors * 4 <= kMostSums ? 4 : rows * vectors * 2 <= kMostSums ? 2 : 1;
  }

  // Fetching ahead costs a load for each line of activations, which few rows cannot spare.
  static constexpr bool fetches_ahead(int rows) { return rows >= 4; }
  static constexpr bool kFetchesWeightsAhead = true;

  static constexpr int kDepthwiseRows = 4;  // of a tile

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector set(float value) { return _mm256_set1_ps(value); }
  static Vector broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static Vector load(const Float16* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Vector load(const Bfloat16* from) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static Vector load(const int8_t* from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  }
  static float widen(float value) { return value; }
  static float widen(int8_t value) { return static_cast<float>(value); }
  static float widen(Float16 value) { return _cvtsh_ss(value.bits); }
  static float widen(Bfloat16 value) {
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtsi32_si128(value.bits), 16)));
  }
  static void store(float* to, Vector v) { _mm256_storeu_ps(to, v); }
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
    const __m256d pairs = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0x88));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(pairs, 0xd8));
  }
  static Vector odd(Vector low, Vector high) {
    const __m256d pairs = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0xdd));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(pairs, 0xd8));
  }
  // The elements of two vectors in a row from number `Begin` on.
  template <int Begin>
  static Vector slide(Vector low, Vector high) {
    const __m256i turned = _mm256_and_si256(
        _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(Begin)), _mm256_set1_epi32(7));
    return _mm256_permutevar8x32_ps(_mm256_blend_ps(low, high, (1 << Begin) - 1), turned);
  }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector divide(Vector a, Vector b) { return _mm256_div_ps(a, b); }
  static Vector round(Vector v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // `n` are integers from -126 to 128, which makes infinity.
  static Vector times_power_of_two(Vector v, Vector n) {
    const __m256i exponents = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return multiply(v, _mm256_castsi256_ps(_mm256_slli_epi32(exponents, 23)));
  }
  static Vector sqrt(Vector v) { return _mm256_sqrt_ps(v); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }

  // The second operand of max and min is the result where either is NaN.
  static Vector at_least(Vector v, Vector min) { return _mm256_max_ps(min, v); }
  static Vector at_most(Vector v, Vector max) { return _mm256_min_ps(max, v); }
  static Vector clamp(Vector v, Vector min, Vector max) { return at_most(at_least(v, min), max); }

  static constexpr bool kHasMaskedLoads = true;
  // Lanes [begin, end).
  static Mask lanes(int begin, int end) { return _mm256_andnot_si256(first_lanes(begin), first_lanes(end)); }
  // Those whose bits are set.
  static Mask lanes_of(uint16_t bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), bit), bit);
  }
  // Zero in the other lanes, which are not read.
  static Vector load_masked(const float* from, Mask mask) { return _mm256_maskload_ps(from, mask); }
  static Vector load_first(const float* from, int count) { return load_masked(from, first_lanes(count)); }

  // In pieces: a masked store takes tens of cycles on AMD's processors.
  static void store_first(float* to, Vector v, int count) {
    if (count == kLanes) return store(to, v);
    __m128 rest = _mm256_castps256_ps128(v);
    if ((count & 4) != 0) {
      _mm_storeu_ps(to, rest);
      rest = _mm256_extractf128_ps(v, 1);
      to += 4;
    }
    if ((count & 2) != 0) {
      _mm_storel_pi(reinterpret_cast<__m64*>(to), rest);
      rest = _mm_movehl_ps(rest, rest);
      to += 2;
    }
    if ((count & 1) != 0) _mm_store_ss(to, rest);
  }

  // The sum of each of 8 vectors.
  static void sum_each(const Vector* v, float* sums) {
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)));
    _mm_storeu_ps(sums + 4, _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1)));
  }

  static Vector gather(const float* x, const uint16_t* indices) {
    return _mm256_setr_ps(x[indices[0]], x[indices[1]], x[indices[2]], x[indices[3]], x[indices[4]], x[indices[5]],
                          x[indices[6]], x[indices[7]]);
  }
  static Vector gather(const float* x, const uint32_t* indices) {
    return _mm256_setr_ps(x[indices[0]], x[indices[1]], x[indices[2]], x[indices[3]], x[indices[4]], x[indices[5]],
                          x[indices[6]], x[indices[7]]);
  }

  static void transpose(Vector* v) {
    const __m256 a0 = _mm256_unpacklo_ps(v[0], v[1]), a1 = _mm256_unpackhi_ps(v[0], v[1]);
    const __m256 a2 = _mm256_unpacklo_ps(v[2], v[3]), a3 = _mm256_unpackhi_ps(v[2], v[3]);
    const __m256 a4 = _mm256_unpacklo_ps(v[4], v[5]), a5 = _mm256_unpackhi_ps(v[4], v[5]);
    const __m256 a6 = _mm256_unpacklo_ps(v[6], v[7]), a7 = _mm256_unpackhi_ps(v[6], v[7]);
    const __m256 b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xee);
    const __m256 b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xee);
    const __m256 b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xee);
    const __m256 b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xee);
    v[0] = _mm256_permute2f128_ps(b0, b4, 0x20);
    v[1] = _mm256_permute2f128_ps(b1, b5, 0x20);
    v[2] = _mm256_permute2f128_ps(b2, b6, 0x20);
    v[3] = _mm256_permute2f128_ps(b3, b7, 0x20);
    v[4] = _mm256_permute2f128_ps(b0, b4, 0x31);
    v[5] = _mm256_permute2f128_ps(b1, b5, 0x31);
    v[6] = _mm256_permute2f128_ps(b2, b6, 0x31);
    v[7] = _mm256_permute2f128_ps(b3, b7, 0x31);
  }

 private:
  static Mask first_lanes(int count) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstLanes + 8 - count));
  }
};

}  // namespace
}  // namespace scalpel
