/* Dense fully connected layers. */
#include "sums.h"

/* A block of r rows from `row` on; gives back where the weights of the next one are. */
SCALPEL_INLINE const int16_t *q15_block_32(const scalpel_q15_layer *layer, const int16_t *values, uint32_t row,
                                           const int16_t *x, int16_t *y, uint32_t r) {
  const int32_t *bias = (const int32_t *)layer->bias + row;
  const uint32_t pairs = layer->inputs / 2u;
  int32_t acc[4] = {0};
  FOR_ROWS(i, r) acc[i] = bias[i];
  if (r == 4 && pairs != 0) {
    scalpel_sum_4_rows(acc, pairs, values, x);
    values += 8 * pairs;
    x += 2 * pairs;
  } else {
    for (uint32_t n = pairs; n != 0; --n) {
      FOR_ROWS(i, r) acc[i] = add_products_32(load_word(values + 2 * i), load_word(x), acc[i]);
      x += 2;
      values += 2 * r;
    }
  }
  if (layer->inputs % 2u != 0) {
    FOR_ROWS(i, r) acc[i] = add_products_32(load_word(values + 2 * i), load_half(x), acc[i]);
    values += 2 * r;
  }
  FOR_ROWS(i, r) y[row + i] = q15_output(q15_rounding_of(layer), acc[i]);
  return values;
}

SCALPEL_INLINE const int16_t *q15_block_64(const scalpel_q15_layer *layer, const int16_t *values, uint32_t row,
                                           const int16_t *x, int16_t *y, uint32_t r) {
  const int64_t *bias = (const int64_t *)layer->bias + row;
  int64_t acc[4];
  FOR_ROWS(i, r) acc[i] = bias[i];
  UNROLLED
  for (uint32_t n = layer->inputs / 2u; n != 0; --n) {
    FOR_ROWS(i, r) acc[i] = add_products_64(load_word(values + 2 * i), load_word(x), acc[i]);
    x += 2;
    values += 2 * r;
  }
  if (layer->inputs % 2u != 0) {
    FOR_ROWS(i, r) acc[i] = add_products_64(load_word(values + 2 * i), load_half(x), acc[i]);
    values += 2 * r;
  }
  FOR_ROWS(i, r) y[row + i] = q15_output_64(q15_rounding_of(layer), acc[i]);
  return values;
}

#define DEFINE_DENSE_FC(ACC)                                                                                 \
  void scalpel_dense_fc_q15_acc##ACC(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y) {         \
    const int16_t *values = layer->values;                                                                   \
    uint32_t row = 0;                                                                                        \
    for (; row + 4 <= layer->rows; row += 4) values = q15_block_##ACC(layer, values, row, x, y, 4);          \
    if (row + 2 <= layer->rows) {                                                                            \
      values = q15_block_##ACC(layer, values, row, x, y, 2);                                                 \
      row += 2;                                                                                              \
    }                                                                                                        \
    if (row < layer->rows) q15_block_##ACC(layer, values, row, x, y, 1);                                     \
  }
DEFINE_DENSE_FC(32)
DEFINE_DENSE_FC(64)

SCALPEL_INLINE const int8_t *w8_block(const scalpel_w8_layer *layer, const int8_t *values, uint32_t row,
                                      const int16_t *x, void *y, uint32_t r) {
  const uint32_t fours = layer->inputs / 4u;
  int32_t acc[4] = {0};
  FOR_ROWS(i, r) acc[i] = layer->bias[row + i];
  if (r == 4 && fours != 0) {
    scalpel_sum_w8_4_rows(acc, fours, values, x);
    values += 16 * fours;
    x += 4 * fours;
  } else {
    for (uint32_t n = fours; n != 0; --n) {
      FOR_ROWS(i, r) acc[i] = add_four(load_word(values + 4 * i), load_word(x), load_word(x + 2), acc[i]);
      values += 4 * r;
      x += 4;
    }
  }
  if (layer->inputs % 4u != 0) {
    int16_t rest[4] = {0, 0, 0, 0};
    for (uint32_t i = 0; i < layer->inputs % 4u; ++i) rest[i] = x[i];
    FOR_ROWS(i, r) acc[i] = add_four(load_word(values + 4 * i), load_word(rest), load_word(rest + 2), acc[i]);
    values += 4 * r;
  }
  for (uint32_t i = 0; i < r; ++i) w8_output(w8_rounding_of(layer), row + i, acc[i], y, row + i);
  return values;
}

void scalpel_dense_fc_w8(const scalpel_w8_layer *layer, const int16_t *x, void *y) {
  const int8_t *values = layer->values;
  uint32_t row = 0;
  for (; row + 4 <= layer->rows; row += 4) values = w8_block(layer, values, row, x, y, 4);
  if (row + 2 <= layer->rows) {
    values = w8_block(layer, values, row, x, y, 2);
    row += 2;
  }
  if (row < layer->rows) w8_block(layer, values, row, x, y, 1);
}
