/* What the kernels compute with: pairs of int16 in a word, as the DSP extension has them, and exact requantization. */
#ifndef SCALPEL_CORTEX_M_ARITHMETIC_H
#define SCALPEL_CORTEX_M_ARITHMETIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "scalpel_kernels.h"

#if defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#endif

#if defined(__GNUC__)
#define SCALPEL_INLINE static inline __attribute__((always_inline))
#else
#define SCALPEL_INLINE static inline
#endif

#if defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 4")
#else
#define UNROLLED
#endif

/* Over the r rows of a block, r a constant: unrolled, so that sums stay in registers. */
#define FOR_ROWS(I, R) UNROLLED for (uint32_t I = 0; I < (R); ++I)

/* The inner loops exist in assembler too, most as naked functions, which GCC leaves alone when it optimizes.
 * -DSCALPEL_ASSEMBLER=0 leaves them out. */
#if defined(SCALPEL_ASSEMBLER)
#elif defined(__ARM_FEATURE_SIMD32) && defined(__thumb2__) && defined(__OPTIMIZE__) && !defined(__clang__)
#define SCALPEL_ASSEMBLER 1
#else
#define SCALPEL_ASSEMBLER 0
#endif

/* Two int16, or four int8, the first in the lowest bits; one LDR. */
SCALPEL_INLINE uint32_t load_word(const void *from) {
  uint32_t word;
  memcpy(&word, from, sizeof word);
  return word;
}

SCALPEL_INLINE uint32_t load_half(const void *from) {
  uint16_t half;
  memcpy(&half, from, sizeof half);
  return half;
}

/* The first of two int16 alone, or both, of `left` > 0 that there are. */
SCALPEL_INLINE uint32_t load_some(const int16_t *from, uint32_t left) {
  return left == 1 ? load_half(from) : load_word(from);
}

SCALPEL_INLINE int32_t low_half(uint32_t pair) { return (int16_t)(uint16_t)pair; }
SCALPEL_INLINE int32_t high_half(uint32_t pair) { return (int16_t)(uint16_t)(pair >> 16); }

/* acc + w0 * x0 + w1 * x1 modulo 2^32. */
SCALPEL_INLINE int32_t add_products_32(uint32_t w, uint32_t x, int32_t acc) {
#if defined(__ARM_FEATURE_SIMD32)
  return __smlad((int16x2_t)w, (int16x2_t)x, acc);
#else
  return (int32_t)((uint32_t)acc + (uint32_t)(low_half(w) * low_half(x)) + (uint32_t)(high_half(w) * high_half(x)));
#endif
}

/* acc + w0 * x0 + w1 * x1. */
SCALPEL_INLINE int64_t add_products_64(uint32_t w, uint32_t x, int64_t acc) {
#if defined(__ARM_FEATURE_SIMD32)
  return __smlald((int16x2_t)w, (int16x2_t)x, acc);
#else
  return acc + (int64_t)low_half(w) * low_half(x) + (int64_t)high_half(w) * high_half(x);
#endif
}

/* The bytes 0 and 2 of a word as two int16. */
SCALPEL_INLINE uint32_t even_bytes(uint32_t word) {
#if defined(__ARM_FEATURE_SIMD32)
  return (uint32_t)__sxtb16((int8x4_t)word);
#else
  return (uint32_t)(uint16_t)(int8_t)(uint8_t)word | (uint32_t)(uint16_t)(int8_t)(uint8_t)(word >> 16) << 16;
#endif
}

/* The bytes 1 and 3. */
SCALPEL_INLINE uint32_t odd_bytes(uint32_t word) {
#if defined(__ARM_FEATURE_SIMD32)
  uint32_t bytes;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(bytes) : "r"(word));
  return bytes;
#else
  return even_bytes(word >> 8);
#endif
}

/* acc + w0 * x0 + ... + w3 * x3 modulo 2^32, for weights in the order w0, w2, w1, w3. */
SCALPEL_INLINE int32_t add_four(uint32_t weights, uint32_t first, uint32_t second, int32_t acc) {
  return add_products_32(odd_bytes(weights), second, add_products_32(even_bytes(weights), first, acc));
}

SCALPEL_INLINE int64_t clamp_64(int64_t value, int32_t min, int32_t max) {
  return value < min ? min : value > max ? max : value;
}

SCALPEL_INLINE int16_t clamp_32(int32_t value, int32_t min, int32_t max) {
  return (int16_t)(value < min ? min : value > max ? max : value);
}

/* value * 2^-shift, half up. */
SCALPEL_INLINE int64_t shift_half_up(int64_t value, uint32_t shift) {
  return shift == 0 ? value : (value + ((int64_t)1 << (shift - 1))) >> shift;
}

/* How sums of int16 weights become outputs; min and max are in both halves. */
typedef struct {
  uint32_t shift;
  uint32_t min;
  uint32_t max;
} q15_rounding;

SCALPEL_INLINE q15_rounding q15_rounding_of(const scalpel_q15_layer *layer) {
  const q15_rounding rounding = {layer->shift, (uint16_t)layer->min * 0x10001u, (uint16_t)layer->max * 0x10001u};
  return rounding;
}

SCALPEL_INLINE int16_t q15_output(q15_rounding rounding, int32_t acc) {
  return clamp_32(acc >> rounding.shift, low_half(rounding.min), low_half(rounding.max));
}

SCALPEL_INLINE int16_t q15_output_64(q15_rounding rounding, int64_t acc) {
  return (int16_t)clamp_64(acc >> rounding.shift, low_half(rounding.min), low_half(rounding.max));
}

/* The larger of each two halves. */
SCALPEL_INLINE uint32_t larger_halves(uint32_t a, uint32_t b) {
#if defined(__ARM_FEATURE_SIMD32)
  (void)__ssub16((int16x2_t)a, (int16x2_t)b);
  return (uint32_t)__sel((uint8x4_t)a, (uint8x4_t)b);
#else
  const uint32_t low = low_half(a) > low_half(b) ? a : b;
  const uint32_t high = high_half(a) > high_half(b) ? a : b;
  return (low & 0xFFFFu) | (high & 0xFFFF0000u);
#endif
}

/* The larger of each two bytes. */
SCALPEL_INLINE uint32_t larger_bytes(uint32_t a, uint32_t b) {
#if defined(__ARM_FEATURE_SIMD32)
  (void)__ssub8((int8x4_t)a, (int8x4_t)b);
  return (uint32_t)__sel((uint8x4_t)a, (uint8x4_t)b);
#else
  uint32_t result = 0;
  FOR_ROWS(i, 4) {
    const uint32_t byte_a = a >> 8 * i & 0xFFu;
    const uint32_t byte_b = b >> 8 * i & 0xFFu;
    result |= ((int8_t)(uint8_t)byte_a > (int8_t)(uint8_t)byte_b ? byte_a : byte_b) << 8 * i;
  }
  return result;
#endif
}

#if defined(__ARM_FEATURE_SIMD32)
/* To int16; arm_acle.h's __ssat does not compile without a warning. */
SCALPEL_INLINE uint32_t saturated(int32_t value) {
  uint32_t result;
  __asm__("ssat %0, #16, %1" : "=r"(result) : "r"(value));
  return result;
}
#endif

/* Two outputs, the first in the lower half. */
SCALPEL_INLINE uint32_t q15_outputs(q15_rounding rounding, int32_t acc0, int32_t acc1) {
#if defined(__ARM_FEATURE_SIMD32)
  uint32_t pair = (saturated(acc0 >> rounding.shift) & 0xFFFFu) | saturated(acc1 >> rounding.shift) << 16;
  (void)__ssub16((int16x2_t)pair, (int16x2_t)rounding.min);
  pair = (uint32_t)__sel((uint8x4_t)pair, (uint8x4_t)rounding.min);
  (void)__ssub16((int16x2_t)rounding.max, (int16x2_t)pair);
  return (uint32_t)__sel((uint8x4_t)pair, (uint8x4_t)rounding.max);
#else
  return (uint32_t)(uint16_t)q15_output(rounding, acc0) | (uint32_t)(uint16_t)q15_output(rounding, acc1) << 16;
#endif
}

SCALPEL_INLINE void store_word(void *to, uint32_t word) { memcpy(to, &word, sizeof word); }

/* What the outputs of all rows share; a copy, because stores of int8 might change the layer. */
typedef struct {
  const int32_t *multipliers;
  const uint8_t *shifts;
  int32_t zero_point;
  int32_t min;
  int32_t max;
  bool y_is_int8;
} w8_rounding;

SCALPEL_INLINE w8_rounding w8_rounding_of(const scalpel_w8_layer *layer) {
  const w8_rounding rounding = {layer->multipliers, layer->shifts, layer->zero_point,
                                layer->min,         layer->max,    layer->y_is_int8 != 0};
  return rounding;
}

SCALPEL_INLINE void w8_store(w8_rounding rounding, int16_t value, void *y, size_t at) {
  if (rounding.y_is_int8) {
    ((int8_t *)y)[at] = (int8_t)value;
  } else {
    ((int16_t *)y)[at] = value;
  }
}

SCALPEL_INLINE void w8_output(w8_rounding rounding, uint32_t row, int32_t acc, void *y, size_t at) {
  const int64_t product = (int64_t)acc * rounding.multipliers[row];
  const uint32_t shift = rounding.shifts[row];
  int16_t value;
  if (shift >= 33) { /* The rounding term touches the upper word alone. */
    const int32_t high = (int32_t)(product >> 32) + (int32_t)((uint32_t)1 << (shift - 33));
    value = clamp_32(rounding.zero_point + (high >> (shift - 32)), rounding.min, rounding.max);
  } else {
    value = (int16_t)clamp_64(rounding.zero_point + shift_half_up(product, shift), rounding.min, rounding.max);
  }
  w8_store(rounding, value, y, at);
}

SCALPEL_INLINE void w8_output_64(w8_rounding rounding, uint32_t row, int64_t acc, void *y, size_t at) {
  const int64_t value = shift_half_up(acc * rounding.multipliers[row], rounding.shifts[row]);
  w8_store(rounding, (int16_t)clamp_64(rounding.zero_point + value, rounding.min, rounding.max), y, at);
}

#endif
