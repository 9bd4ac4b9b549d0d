/* The inner loop of 4x2 groups, of FC and CONV layers: one row block, one input vector or window. */
#ifndef SCALPEL_CORTEX_M_SUM_4X2_H
#define SCALPEL_CORTEX_M_SUM_4X2_H

#include "arithmetic.h"

/* Where the next groups are. */
typedef struct {
  const int16_t *values;
  const uint8_t *columns; /* the bytes of uint8_t or uint16_t ones */
} group_position;

#if SCALPEL_ASSEMBLER

/* Adds n groups to four sums, and moves `at` behind them. Needs every register: acc in r4-r7, weights in r8-r11,
 * columns and then inputs in r0, r2. Loads stand together, because the M4 overlaps them. */
void scalpel_sum_4x2_u8(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);
void scalpel_sum_4x2_u16(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);

#endif

#endif
