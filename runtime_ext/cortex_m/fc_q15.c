/* Sparse fully connected layers, int16 weights. */
#include "arithmetic.h"
#include "sums.h"

#if SCALPEL_ASSEMBLER

/* Fixed registers: r2, r3 hold columns, then inputs (with r4, r5 in 1x2); r6, r8, r9, r10 hold weights. Loads stand
 * together, because the M4 overlaps them. NEXT loads a column: a byte or a halfword. */
#define NEXT_U8(TO) "ldrb " TO ", [%[columns]], #1\n\t"
#define NEXT_U16(TO) "ldrh " TO ", [%[columns]], #2\n\t"
#define INPUT(TO) "ldr " TO ", [%[x], " TO ", lsl #2]\n\t"
#define TWO_INPUTS(NEXT) NEXT("r2") NEXT("r3") INPUT("r2") INPUT("r3")
#define FOUR_INPUTS(NEXT) \
  NEXT("r2") NEXT("r3") NEXT("r4") NEXT("r5") INPUT("r2") INPUT("r3") INPUT("r4") INPUT("r5")
#define FOUR_WEIGHTS "ldmia %[values]!, {r6, r8, r9, r10}\n\t"
#define ADD(ACC, X, W) "smlad %[" ACC "], " X ", " W ", %[" ACC "]\n\t"

#define GROUPS_1x2_4(NEXT)                                                                                        \
  FOUR_INPUTS(NEXT)                                                                                               \
  FOUR_WEIGHTS ADD("acc0", "r2", "r6") ADD("acc0", "r3", "r8") ADD("acc0", "r4", "r9") ADD("acc0", "r5", "r10")
/* n mod 8 first: the lowest bit goes to N, the next to C, the third to C of the second shift. */
#define SUM_1x2(NEXT)                                                                                             \
  __asm__ volatile("lsls r2, %[n], #31\n\t"                                                                       \
                   "bpl 1f\n\t" NEXT("r2") INPUT("r2") "ldr r6, [%[values]], #4\n\t" ADD("acc0", "r2", "r6")      \
                   "1:\n\t"                                                                                       \
                   "bcc 2f\n\t" TWO_INPUTS(NEXT) "ldrd r6, r8, [%[values]], #8\n\t" ADD("acc0", "r2", "r6")       \
                       ADD("acc0", "r3", "r8")                                                                    \
                   "2:\n\t"                                                                                       \
                   "lsrs %[n], %[n], #3\n\t"                                                                      \
                   "bcc 3f\n\t" GROUPS_1x2_4(NEXT)                                                                \
                   "3:\n\t"                                                                                       \
                   "beq 5f\n\t"                                                                                   \
                   "4:\n\t" GROUPS_1x2_4(NEXT) GROUPS_1x2_4(NEXT)                                                 \
                   "subs %[n], #1\n\t"                                                                            \
                   "bne 4b\n\t"                                                                                   \
                   "5:"                                                                                           \
                   : [acc0] "+r"(acc[0]), [n] "+r"(n), [values] "+r"(at->values), [columns] "+r"(at->columns)     \
                   : [x] "r"(x)                                                                                   \
                   : "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "cc", "memory")

#define GROUPS_2x2_2(NEXT) \
  TWO_INPUTS(NEXT)         \
  FOUR_WEIGHTS ADD("acc0", "r2", "r6") ADD("acc1", "r2", "r8") ADD("acc0", "r3", "r9") ADD("acc1", "r3", "r10")
#define SUM_2x2(NEXT)                                                                                             \
  __asm__ volatile("lsls r2, %[n], #31\n\t"                                                                       \
                   "bpl 1f\n\t" NEXT("r2") INPUT("r2") "ldrd r6, r8, [%[values]], #8\n\t" ADD("acc0", "r2", "r6") \
                       ADD("acc1", "r2", "r8")                                                                    \
                   "1:\n\t"                                                                                       \
                   "bcc 2f\n\t" GROUPS_2x2_2(NEXT)                                                                \
                   "2:\n\t"                                                                                       \
                   "lsrs %[n], %[n], #2\n\t"                                                                      \
                   "beq 4f\n\t"                                                                                   \
                   "3:\n\t" GROUPS_2x2_2(NEXT) GROUPS_2x2_2(NEXT)                                                 \
                   "subs %[n], #1\n\t"                                                                            \
                   "bne 3b\n\t"                                                                                   \
                   "4:"                                                                                           \
                   : [acc0] "+r"(acc[0]), [acc1] "+r"(acc[1]), [n] "+r"(n), [values] "+r"(at->values),            \
                     [columns] "+r"(at->columns)                                                                  \
                   : [x] "r"(x)                                                                                   \
                   : "r2", "r3", "r6", "r8", "r9", "r10", "cc", "memory")

/* Adds the n groups of a row block. */
SCALPEL_INLINE void sum_32(int32_t *acc, uint32_t n, group_position *at, const int16_t *x, uint32_t r, bool narrow) {
  if (r == 1) {
    if (narrow) {
      SUM_1x2(NEXT_U8);
    } else {
      SUM_1x2(NEXT_U16);
    }
  } else if (r == 2) {
    if (narrow) {
      SUM_2x2(NEXT_U8);
    } else {
      SUM_2x2(NEXT_U16);
    }
  } else if (narrow) {
    scalpel_sum_4x2_u8(acc, n, at, x);
  } else {
    scalpel_sum_4x2_u16(acc, n, at, x);
  }
}

#endif

SCALPEL_INLINE uint32_t next_column(group_position *at, bool narrow) {
  const uint32_t column = narrow ? *at->columns : load_half(at->columns);
  at->columns += narrow ? 1 : 2;
  return column;
}

#if !SCALPEL_ASSEMBLER

SCALPEL_INLINE void sum_32(int32_t *acc, uint32_t n, group_position *at, const int16_t *x, uint32_t r, bool narrow) {
  for (; n != 0; --n) {
    const uint32_t pair = load_word(x + 2 * (size_t)next_column(at, narrow));
    FOR_ROWS(i, r) acc[i] = add_products_32(load_word(at->values + 2 * i), pair, acc[i]);
    at->values += 2 * r;
  }
}

#endif

SCALPEL_INLINE void sum_64(int64_t *acc, uint32_t n, group_position *at, const int16_t *x, uint32_t r, bool narrow) {
  UNROLLED
  for (; n != 0; --n) {
    const uint32_t pair = load_word(x + 2 * (size_t)next_column(at, narrow));
    FOR_ROWS(i, r) acc[i] = add_products_64(load_word(at->values + 2 * i), pair, acc[i]);
    at->values += 2 * r;
  }
}

SCALPEL_INLINE void fc(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y, uint32_t r, bool narrow,
                       bool acc64) {
  const q15_rounding rounding = q15_rounding_of(layer);
  const size_t bias_bytes = acc64 ? sizeof(int64_t) : sizeof(int32_t);
  group_position at = {layer->values, layer->columns};
  const uint16_t *counts = layer->counts;
  const uint8_t *bias = layer->bias;
  for (int32_t left = layer->rows; left > 0; left -= (int32_t)r) {
    int64_t last_bias[4] = {0};
    int16_t last_y[4];
    const bool is_whole = left >= (int32_t)r;
    if (!is_whole) memcpy(last_bias, bias, (size_t)left * bias_bytes);
    const void *from = is_whole ? (const void *)bias : last_bias;
    int16_t *to = is_whole ? y : last_y;
    if (acc64) {
      int64_t acc[4];
      FOR_ROWS(i, r) acc[i] = ((const int64_t *)from)[i];
      sum_64(acc, *counts++, &at, x, r, narrow);
      FOR_ROWS(i, r) to[i] = q15_output_64(rounding, acc[i]);
    } else {
      int32_t acc[4];
      FOR_ROWS(i, r) acc[i] = ((const int32_t *)from)[i];
      sum_32(acc, *counts++, &at, x, r, narrow);
      if (r == 1) {
        to[0] = q15_output(rounding, acc[0]);
      } else {
        store_word(to, q15_outputs(rounding, acc[0], acc[1]));
        if (r == 4) store_word(to + 2, q15_outputs(rounding, acc[2], acc[3]));
      }
    }
    if (!is_whole) memcpy(y, last_y, (size_t)left * sizeof *y);
    y += r;
    bias += r * bias_bytes;
  }
}

#define DEFINE_FC(NAME, ROWS, NARROW, ACC64)                                                 \
  void scalpel_fc_q15_##NAME(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y) { \
    fc(layer, x, y, ROWS, NARROW, ACC64);                                                    \
  }
DEFINE_FC(1x2_u8_acc32, 1, true, false)
DEFINE_FC(2x2_u8_acc32, 2, true, false)
DEFINE_FC(4x2_u8_acc32, 4, true, false)
DEFINE_FC(1x2_u16_acc32, 1, false, false)
DEFINE_FC(2x2_u16_acc32, 2, false, false)
DEFINE_FC(4x2_u16_acc32, 4, false, false)
DEFINE_FC(1x2_u8_acc64, 1, true, true)
DEFINE_FC(2x2_u8_acc64, 2, true, true)
DEFINE_FC(4x2_u8_acc64, 4, true, true)
DEFINE_FC(1x2_u16_acc64, 1, false, true)
DEFINE_FC(2x2_u16_acc64, 2, false, true)
DEFINE_FC(4x2_u16_acc64, 4, false, true)
