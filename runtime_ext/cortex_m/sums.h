/* Inner loops that need every register of the machine, for GCC; other compilers get the same sums from C. */
#ifndef SCALPEL_CORTEX_M_SUMS_H
#define SCALPEL_CORTEX_M_SUMS_H

#include "arithmetic.h"

/* Where the next groups are. */
typedef struct {
  const int16_t *values;
  const uint8_t *columns; /* the bytes of uint8_t or uint16_t ones */
} group_position;

/* The groups of one row block, and the windows of some pixels. */
typedef struct {
  const int16_t *values;
  const uint16_t *columns;
  const int16_t *x[4];
} group_windows;

/* The weights of a row block, interleaved, and the windows of two pixels. */
typedef struct {
  const int16_t *values;
  const int16_t *x[2];
} run_windows;

#if SCALPEL_ASSEMBLER

/* acc[i] += row i of n groups of 4x2 with one vector or window x; moves `at` behind them. */
void scalpel_sum_4x2_u8(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);
void scalpel_sum_4x2_u16(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);

/* acc[i] += n groups of 1x2 with window i of four. */
void scalpel_sum_1x2_4_pixels(int32_t *acc, uint32_t n, const group_windows *at);

/* acc[2 * i + row] += row of n groups of 2x2 with window i of two. */
void scalpel_sum_2x2_2_pixels(int32_t *acc, uint32_t n, const group_windows *at);

/* acc[2 * i + row] += row of n > 0 pairs of columns, two rows interleaved, with window i of two; moves `at` behind
 * them. */
void scalpel_sum_2_rows_2_pixels(int32_t *acc, uint32_t n, run_windows *at);

/* acc[i] += row i of n > 0 pairs of columns, four rows interleaved, with one vector. */
void scalpel_sum_4_rows(int32_t *acc, uint32_t n, const int16_t *values, const int16_t *x);

#else

SCALPEL_INLINE void scalpel_sum_4x2_u8(int32_t *acc, uint32_t n, group_position *at, const int16_t *x) {
  for (; n != 0; --n) {
    const uint32_t pair = load_word(x + 2 * (size_t)*at->columns++);
    FOR_ROWS(i, 4) acc[i] = add_products_32(load_word(at->values + 2 * i), pair, acc[i]);
    at->values += 8;
  }
}

SCALPEL_INLINE void scalpel_sum_4x2_u16(int32_t *acc, uint32_t n, group_position *at, const int16_t *x) {
  for (; n != 0; --n) {
    const uint32_t pair = load_word(x + 2 * (size_t)load_half(at->columns));
    FOR_ROWS(i, 4) acc[i] = add_products_32(load_word(at->values + 2 * i), pair, acc[i]);
    at->columns += 2;
    at->values += 8;
  }
}

SCALPEL_INLINE void scalpel_sum_1x2_4_pixels(int32_t *acc, uint32_t n, const group_windows *at) {
  for (uint32_t group = 0; group < n; ++group) {
    const uint32_t weights = load_word(at->values + 2 * group);
    const size_t column = 2 * (size_t)at->columns[group];
    FOR_ROWS(i, 4) acc[i] = add_products_32(weights, load_word(at->x[i] + column), acc[i]);
  }
}

SCALPEL_INLINE void scalpel_sum_2x2_2_pixels(int32_t *acc, uint32_t n, const group_windows *at) {
  for (uint32_t group = 0; group < n; ++group) {
    const int16_t *values = at->values + 4 * group;
    const size_t column = 2 * (size_t)at->columns[group];
    FOR_ROWS(i, 4) {
      acc[i] = add_products_32(load_word(values + i % 2 * 2), load_word(at->x[i / 2] + column), acc[i]);
    }
  }
}

SCALPEL_INLINE void scalpel_sum_2_rows_2_pixels(int32_t *acc, uint32_t n, run_windows *at) {
  for (; n != 0; --n) {
    FOR_ROWS(i, 4) {
      acc[i] = add_products_32(load_word(at->values + i % 2 * 2), load_word(at->x[i / 2]), acc[i]);
    }
    at->values += 4;
    at->x[0] += 2;
    at->x[1] += 2;
  }
}

SCALPEL_INLINE void scalpel_sum_4_rows(int32_t *acc, uint32_t n, const int16_t *values, const int16_t *x) {
  for (; n != 0; --n) {
    const uint32_t pair = load_word(x);
    FOR_ROWS(i, 4) acc[i] = add_products_32(load_word(values + 2 * i), pair, acc[i]);
    x += 2;
    values += 8;
  }
}

#endif

#endif
