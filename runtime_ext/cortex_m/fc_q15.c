/* Sparse fully connected layers, int16 weights. */
#include "arithmetic.h"
#include "sums.h"

SCALPEL_INLINE uint32_t next_column(group_position *at, bool narrow) {
  const uint32_t column = narrow ? *at->columns : load_half(at->columns);
  at->columns += narrow ? 1 : 2;
  return column;
}

typedef void (*sum)(int32_t *acc, uint32_t n, group_position *at, const int16_t *x);

SCALPEL_INLINE void sum_64(int64_t *acc, uint32_t n, group_position *at, const int16_t *x, uint32_t r, bool narrow) {
  UNROLLED
  for (; n != 0; --n) {
    const uint32_t pair = load_word(x + 2 * (size_t)next_column(at, narrow));
    FOR_ROWS(i, r) acc[i] = add_products_64(load_word(at->values + 2 * i), pair, acc[i]);
    at->values += 2 * r;
  }
}

SCALPEL_INLINE void fc(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y, uint32_t r, bool narrow,
                       bool acc64, sum sum_32) {
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
      sum_32(acc, *counts++, &at, x);
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

#define DEFINE_FC(SHAPE, ROWS, INDEX, NARROW)                                                                  \
  void scalpel_fc_q15_##SHAPE##_##INDEX##_acc32(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y) { \
    fc(layer, x, y, ROWS, NARROW, false, scalpel_sum_##SHAPE##_##INDEX);                                       \
  }                                                                                                            \
  void scalpel_fc_q15_##SHAPE##_##INDEX##_acc64(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y) { \
    fc(layer, x, y, ROWS, NARROW, true, NULL);                                                                 \
  }
DEFINE_FC(1x2, 1, u8, true)
DEFINE_FC(2x2, 2, u8, true)
DEFINE_FC(4x2, 4, u8, true)
DEFINE_FC(1x2, 1, u16, false)
DEFINE_FC(2x2, 2, u16, false)
DEFINE_FC(4x2, 4, u16, false)
