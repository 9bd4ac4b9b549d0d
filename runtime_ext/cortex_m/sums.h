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

/* Tiles of outputs along a row of pixels, and the groups of one row block; the assembler knows this order. */
typedef struct {
  const int16_t *values;
  const uint16_t *columns;
  uint32_t n;
  const int16_t *x; /* the first window */
  uint32_t x_bytes; /* from one window to the next */
  int16_t *y;
  uint32_t y_bytes; /* from one output to the next */
  uint32_t tiles;   /* at least 1 */
  q15_rounding rounding;
  int32_t bias[4];
} row_of_tiles;

/* The runs of a window at two pixels, and two rows of weights, interleaved; the assembler knows this order. */
typedef struct {
  uint32_t count;
  uint32_t length;
  const uint32_t *offsets;
  const int16_t *x[2];
  const int16_t *values;
} run_windows;

/* The same for int8 weights. */
typedef struct {
  const int8_t *values;
  const uint8_t *columns;
} byte_group_position;

typedef struct {
  uint32_t count;
  uint32_t length;
  const uint32_t *offsets;
  const int16_t *x[2];
  const int8_t *values;
} byte_run_windows;

/* The assembler knows this order. y = clamp((((acc * multiplier) >> 32) + addend) >> shift, min, max). */
typedef struct {
  const int8_t *values;
  const uint16_t *columns;
  uint32_t n;
  const int16_t *x; /* the first window */
  uint32_t x_bytes; /* from one window to the next */
  void *y;
  uint32_t y_bytes; /* from one output to the next */
  uint32_t tiles;   /* at least 1 */
  uint32_t min;     /* in both halves */
  uint32_t max;
  uint32_t y_is_int8;
  int32_t bias[2]; /* of each row of the block */
  int32_t multipliers[2];
  int32_t addends[2];
  int32_t shifts[2];
} byte_row_of_tiles;

/* acc[i] += row i of n groups of int8 weights with one vector or window x; moves `at` behind them. */
typedef void (*byte_sum)(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x);

#if SCALPEL_ASSEMBLER

#define NEXT_COLUMN_u8(TO) "ldrb %[" TO "], [%[columns]], #1\n\t"
#define NEXT_COLUMN_u16(TO) "ldrh %[" TO "], [%[columns]], #2\n\t"
#define INPUT_OF(COLUMN) "ldr %[" COLUMN "], [%[x], %[" COLUMN "], lsl #2]\n\t"
#define PRODUCT(X, W) "smlad %[sum], %[" X "], %[" W "], %[sum]\n\t"
#define TWO_PRODUCTS(X0, X1) "ldrd %[w0], %[w1], [%[values]], #8\n\t" PRODUCT(X0, "w0") PRODUCT(X1, "w1")
/* Two of the weights come right behind the inputs, where a load takes one cycle. */
#define FOUR_GROUPS_1x2(NEXT)                                                                             \
  NEXT("x0") NEXT("x1") NEXT("x2") NEXT("x3") INPUT_OF("x0") INPUT_OF("x1") INPUT_OF("x2") INPUT_OF("x3") \
  "ldr %[w0], [%[values]], #4\n\t"                                                                        \
  "ldr %[w1], [%[values]], #4\n\t" PRODUCT("x0", "w0") PRODUCT("x1", "w1") TWO_PRODUCTS("x2", "x3")

/* Adds n groups to a row. That is too little work to save all registers for: this takes 11, and the caller's code around
 * it the others. n mod 8 first: its lowest bit goes to N, the next to C, the third to C of the second shift. */
#define DEFINE_SUM_1x2(INDEX)                                                                                       \
  SCALPEL_INLINE void scalpel_sum_1x2_##INDEX(int32_t *acc, uint32_t n, group_position *at, const int16_t *x) {     \
    uint32_t x0, x1, x2, x3, w0, w1;                                                                                \
    __asm__ volatile(                                                                                               \
        "lsls %[x0], %[n], #31\n\t"                                                                                 \
        "bpl 1f\n\t" NEXT_COLUMN_##INDEX("x0") INPUT_OF("x0") "ldr %[w0], [%[values]], #4\n\t"                      \
        PRODUCT("x0", "w0")                                                                                         \
        "1:\n\t"                                                                                                    \
        "bcc 2f\n\t" NEXT_COLUMN_##INDEX("x0") NEXT_COLUMN_##INDEX("x1") INPUT_OF("x0") INPUT_OF("x1")              \
            TWO_PRODUCTS("x0", "x1")                                                                                \
        "2:\n\t"                                                                                                    \
        "lsrs %[n], %[n], #3\n\t"                                                                                   \
        "bcc 3f\n\t" FOUR_GROUPS_1x2(NEXT_COLUMN_##INDEX)                                                           \
        "3:\n\t"                                                                                                    \
        "beq 5f\n\t"                                                                                                \
        "4:\n\t" FOUR_GROUPS_1x2(NEXT_COLUMN_##INDEX) FOUR_GROUPS_1x2(NEXT_COLUMN_##INDEX)                          \
        "subs %[n], #1\n\t"                                                                                         \
        "bne 4b\n\t"                                                                                                \
        "5:"                                                                                                        \
        : [sum] "+r"(*acc), [n] "+r"(n), [values] "+r"(at->values), [columns] "+r"(at->columns), [x0] "=&r"(x0),    \
          [x1] "=&r"(x1), [x2] "=&r"(x2), [x3] "=&r"(x3), [w0] "=&r"(w0), [w1] "=&r"(w1)                            \
        : [x] "r"(x)                                                                                                \
        : "cc", "memory");                                                                                          \
  }
DEFINE_SUM_1x2(u8)
DEFINE_SUM_1x2(u16)

/* acc[i] += row i of n groups with one vector or window x; moves `at` behind them. */
void scalpel_sum_2x2_u8(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);
void scalpel_sum_2x2_u16(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);
void scalpel_sum_4x2_u8(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);
void scalpel_sum_4x2_u16(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);

/* acc[i] += n groups of 1x2 with window i of four. */
void scalpel_sum_1x2_4_pixels(int32_t *acc, uint32_t n, const group_windows *at);

/* Tiles of four pixels by one row of weights in groups of 1x2, and of one pixel by four rows in groups of 4x2. */
void scalpel_tiles_1x2(const row_of_tiles *row);
void scalpel_tiles_4x2(const row_of_tiles *row);

/* acc[2 * i + row] += row of n groups of 2x2 with window i of two. */
void scalpel_sum_2x2_2_pixels(int32_t *acc, uint32_t n, const group_windows *at);

/* acc[2 * i + row] += row of the weights with window i of two. */
void scalpel_sum_2_rows_2_pixels(int32_t *acc, const run_windows *at);

/* acc[i] += row i of n > 0 pairs of columns, four rows interleaved, with one vector. */
void scalpel_sum_4_rows(int32_t *acc, uint32_t n, const int16_t *values, const int16_t *x);

/* The same for int8 weights, n counts fours of columns. */
#define STEP_1x4(NEXT)                       \
  NEXT("x0")                                 \
  "ldr %[w0], [%[values]], #4\n\t"           \
  "ldr %[x1], [%[x], %[x0], lsl #3]\n\t"     \
  "ldr %[x0], [%[x4], %[x0], lsl #3]\n\t"    \
  "sxtb16 %[w1], %[w0]\n\t"                  \
  "sxtb16 %[w0], %[w0], ror #8\n\t"          \
  PRODUCT("x1", "w1") PRODUCT("x0", "w0")

/* n mod 4 first: its lower bit goes to N, the other to C. */
#define DEFINE_SUM_1x4(INDEX)                                                                                         \
  SCALPEL_INLINE void scalpel_sum_1x4_##INDEX(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x) {  \
    uint32_t x0, x1, w0, w1;                                                                                          \
    __asm__ volatile(                                                                                                 \
        "lsls %[x0], %[n], #31\n\t"                                                                                   \
        "bpl 1f\n\t" STEP_1x4(NEXT_COLUMN_##INDEX)                                                                    \
        "1:\n\t"                                                                                                      \
        "bcc 2f\n\t" STEP_1x4(NEXT_COLUMN_##INDEX) STEP_1x4(NEXT_COLUMN_##INDEX)                                      \
        "2:\n\t"                                                                                                      \
        "lsrs %[n], %[n], #2\n\t"                                                                                     \
        "beq 4f\n\t"                                                                                                  \
        "3:\n\t" STEP_1x4(NEXT_COLUMN_##INDEX) STEP_1x4(NEXT_COLUMN_##INDEX) STEP_1x4(NEXT_COLUMN_##INDEX)            \
            STEP_1x4(NEXT_COLUMN_##INDEX)                                                                             \
        "subs %[n], #1\n\t"                                                                                           \
        "bne 3b\n\t"                                                                                                  \
        "4:"                                                                                                          \
        : [sum] "+r"(*acc), [n] "+r"(n), [values] "+r"(at->values), [columns] "+r"(at->columns), [x0] "=&r"(x0),      \
          [x1] "=&r"(x1), [w0] "=&r"(w0), [w1] "=&r"(w1)                                                              \
        : [x] "r"(x), [x4] "r"(x + 2)                                                                                 \
        : "cc", "memory");                                                                                            \
  }
DEFINE_SUM_1x4(u8)
DEFINE_SUM_1x4(u16)

void scalpel_sum_2x4_u8(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x);
void scalpel_sum_2x4_u16(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x);
void scalpel_sum_4x4_u8(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x);
void scalpel_sum_4x4_u16(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x);
void scalpel_sum_w8_2_rows_2_pixels(int32_t *acc, const byte_run_windows *at);
void scalpel_sum_w8_4_rows(int32_t *acc, uint32_t n, const int8_t *values, const int16_t *x);

/* Tiles of four pixels by one row of weights in groups of 1x4, and of two pixels by two rows in groups of 2x4. */
void scalpel_tiles_1x4(const byte_row_of_tiles *row);
void scalpel_tiles_2x4(const byte_row_of_tiles *row);

#else

SCALPEL_INLINE void groups(int32_t *acc, uint32_t n, group_position *at, const int16_t *x, uint32_t r, bool narrow) {
  for (; n != 0; --n) {
    const uint32_t pair = load_word(x + 2 * (size_t)(narrow ? *at->columns : load_half(at->columns)));
    FOR_ROWS(i, r) acc[i] = add_products_32(load_word(at->values + 2 * i), pair, acc[i]);
    at->columns += narrow ? 1 : 2;
    at->values += 2 * r;
  }
}

#define DEFINE_SUM(SHAPE, ROWS)                                                                                    \
  SCALPEL_INLINE void scalpel_sum_##SHAPE##_u8(int32_t *acc, uint32_t n, group_position *at, const int16_t *x) {   \
    groups(acc, n, at, x, ROWS, true);                                                                             \
  }                                                                                                                \
  SCALPEL_INLINE void scalpel_sum_##SHAPE##_u16(int32_t *acc, uint32_t n, group_position *at, const int16_t *x) {  \
    groups(acc, n, at, x, ROWS, false);                                                                            \
  }
DEFINE_SUM(1x2, 1)
DEFINE_SUM(2x2, 2)
DEFINE_SUM(4x2, 4)

SCALPEL_INLINE void scalpel_sum_1x2_4_pixels(int32_t *acc, uint32_t n, const group_windows *at) {
  for (uint32_t group = 0; group < n; ++group) {
    const uint32_t weights = load_word(at->values + 2 * group);
    const size_t column = 2 * (size_t)at->columns[group];
    FOR_ROWS(i, 4) acc[i] = add_products_32(weights, load_word(at->x[i] + column), acc[i]);
  }
}

SCALPEL_INLINE void scalpel_tiles_1x2(const row_of_tiles *row) {
  const uint8_t *x = (const uint8_t *)row->x;
  uint8_t *y = (uint8_t *)row->y;
  group_windows at = {row->values, row->columns, {NULL, NULL, NULL, NULL}};
  for (uint32_t tile = row->tiles; tile != 0; --tile) {
    int32_t acc[4] = {row->bias[0], row->bias[0], row->bias[0], row->bias[0]};
    FOR_ROWS(i, 4) at.x[i] = (const int16_t *)(const void *)(x + i * row->x_bytes);
    scalpel_sum_1x2_4_pixels(acc, row->n, &at);
    FOR_ROWS(i, 4) {
      const int16_t value = q15_output(row->rounding, acc[i]);
      memcpy(y + i * row->y_bytes, &value, sizeof value);
    }
    x += 4 * (size_t)row->x_bytes;
    y += 4 * (size_t)row->y_bytes;
  }
}

SCALPEL_INLINE void scalpel_tiles_4x2(const row_of_tiles *row) {
  const uint8_t *x = (const uint8_t *)row->x;
  uint8_t *y = (uint8_t *)row->y;
  for (uint32_t tile = row->tiles; tile != 0; --tile) {
    int32_t acc[4] = {row->bias[0], row->bias[1], row->bias[2], row->bias[3]};
    group_position at = {row->values, (const uint8_t *)row->columns};
    scalpel_sum_4x2_u16(acc, row->n, &at, (const int16_t *)(const void *)x);
    store_word(y, q15_outputs(row->rounding, acc[0], acc[1]));
    store_word(y + 4, q15_outputs(row->rounding, acc[2], acc[3]));
    x += row->x_bytes;
    y += row->y_bytes;
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

SCALPEL_INLINE void scalpel_sum_2_rows_2_pixels(int32_t *acc, const run_windows *at) {
  const int16_t *values = at->values;
  for (uint32_t run = 0; run < at->count; ++run) {
    const size_t offset = at->offsets[run];
    for (uint32_t k = 0; k < at->length; k += 2) {
      FOR_ROWS(i, 4) {
        const int16_t *x = at->x[i / 2] + offset + k;
        acc[i] = add_products_32(load_word(values + i % 2 * 2), load_some(x, at->length - k), acc[i]);
      }
      values += 4;
    }
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

SCALPEL_INLINE void byte_groups(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x, uint32_t r,
                                bool narrow) {
  for (; n != 0; --n) {
    const int16_t *four = x + 4 * (size_t)(narrow ? *at->columns : load_half(at->columns));
    FOR_ROWS(i, r) acc[i] = add_four(load_word(at->values + 4 * i), load_word(four), load_word(four + 2), acc[i]);
    at->columns += narrow ? 1 : 2;
    at->values += 4 * r;
  }
}

#define DEFINE_SUM_W8(SHAPE, ROWS)                                                                                   \
  SCALPEL_INLINE void scalpel_sum_##SHAPE##_u8(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x) {  \
    byte_groups(acc, n, at, x, ROWS, true);                                                                          \
  }                                                                                                                  \
  SCALPEL_INLINE void scalpel_sum_##SHAPE##_u16(int32_t *acc, uint32_t n, byte_group_position *at, const int16_t *x) { \
    byte_groups(acc, n, at, x, ROWS, false);                                                                         \
  }
DEFINE_SUM_W8(1x4, 1)
DEFINE_SUM_W8(2x4, 2)
DEFINE_SUM_W8(4x4, 4)

SCALPEL_INLINE void scalpel_sum_w8_2_rows_2_pixels(int32_t *acc, const byte_run_windows *at) {
  const int8_t *values = at->values;
  for (uint32_t run = 0; run < at->count; ++run) {
    const size_t offset = at->offsets[run];
    for (uint32_t k = 0; k < at->length; k += 4) {
      const uint32_t left = at->length - k;
      FOR_ROWS(i, 4) {
        const int16_t *x = at->x[i / 2] + offset + k;
        const uint32_t second = left > 2 ? load_some(x + 2, left - 2) : 0;
        acc[i] = add_four(load_word(values + i % 2 * 4), load_some(x, left), second, acc[i]);
      }
      values += 8;
    }
  }
}

SCALPEL_INLINE void byte_tiles(const byte_row_of_tiles *row, uint32_t r, byte_sum add_groups) {
  const uint8_t *x = (const uint8_t *)row->x;
  uint8_t *y = row->y;
  for (uint32_t left = row->tiles * (4 / r); left != 0; --left) {
    byte_group_position at = {row->values, (const uint8_t *)row->columns};
    int32_t acc[2] = {row->bias[0], row->bias[1]};
    add_groups(acc, row->n, &at, (const int16_t *)(const void *)x);
    FOR_ROWS(i, r) {
      const int32_t high = (int32_t)(((int64_t)acc[i] * row->multipliers[i]) >> 32) + row->addends[i];
      const int16_t value = clamp_32(high >> row->shifts[i], low_half(row->min), low_half(row->max));
      if (row->y_is_int8) {
        y[i] = (uint8_t)value;
      } else {
        memcpy(y + 2 * i, &value, sizeof value);
      }
    }
    x += row->x_bytes;
    y += row->y_bytes;
  }
}

SCALPEL_INLINE void scalpel_tiles_1x4(const byte_row_of_tiles *row) { byte_tiles(row, 1, scalpel_sum_1x4_u16); }
SCALPEL_INLINE void scalpel_tiles_2x4(const byte_row_of_tiles *row) { byte_tiles(row, 2, scalpel_sum_2x4_u16); }

SCALPEL_INLINE void scalpel_sum_w8_4_rows(int32_t *acc, uint32_t n, const int8_t *values, const int16_t *x) {
  for (; n != 0; --n) {
    FOR_ROWS(i, 4) acc[i] = add_four(load_word(values + 4 * i), load_word(x), load_word(x + 2), acc[i]);
    values += 16;
    x += 4;
  }
}

#endif

/* So many fours of products of int8 and int16 fit a sum of 32 bits: 127 * 4 * 2^7 * 2^15 < 2^31. Wide sums are sums of such. */
#define FOURS_OF_32_BITS 127u

SCALPEL_INLINE uint32_t fours_of_32_bits(uint32_t left) { return left < FOURS_OF_32_BITS ? left : FOURS_OF_32_BITS; }

SCALPEL_INLINE void byte_groups_64(int64_t *acc, uint32_t n, byte_group_position *at, const int16_t *x, uint32_t r,
                                   byte_sum add_groups) {
  do {
    const uint32_t some = fours_of_32_bits(n);
    int32_t part[4] = {0};
    add_groups(part, some, at, x);
    FOR_ROWS(i, r) acc[i] += part[i];
    n -= some;
  } while (n != 0);
}

#endif
