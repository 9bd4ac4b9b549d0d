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

#define DEFINE_DENSE_FC(FAMILY, ACC, WEIGHT, Y)                                                              \
  void scalpel_dense_fc_##FAMILY##_acc##ACC(const scalpel_##FAMILY##_layer *layer, const int16_t *x, Y *y) { \
    const WEIGHT *values = layer->values;                                                                    \
    uint32_t row = 0;                                                                                        \
    for (; row + 4 <= layer->rows; row += 4) values = FAMILY##_block_##ACC(layer, values, row, x, y, 4);     \
    if (row + 2 <= layer->rows) {                                                                            \
      values = FAMILY##_block_##ACC(layer, values, row, x, y, 2);                                            \
      row += 2;                                                                                              \
    }                                                                                                        \
    if (row < layer->rows) FAMILY##_block_##ACC(layer, values, row, x, y, 1);                                \
  }
DEFINE_DENSE_FC(q15, 32, int16_t, int16_t)
DEFINE_DENSE_FC(q15, 64, int16_t, int16_t)

/* acc[i] += row i of r interleaved ones with n fours of columns. */
SCALPEL_INLINE void w8_fours(int32_t *acc, uint32_t n, const int8_t *values, const int16_t *x, uint32_t r) {
  if (r == 4 && n != 0) {
    scalpel_sum_w8_4_rows(acc, n, values, x);
  } else {
    for (; n != 0; --n) {
      FOR_ROWS(i, r) acc[i] = add_four(load_word(values + 4 * i), load_word(x), load_word(x + 2), acc[i]);
      values += 4 * r;
      x += 4;
    }
  }
}

/* The last columns, fewer than four. */
SCALPEL_INLINE void w8_rest(int32_t *acc, uint32_t left, const int8_t *values, const int16_t *x, uint32_t r) {
  int16_t rest[4] = {0, 0, 0, 0};
  for (uint32_t i = 0; i < left; ++i) rest[i] = x[i];
  FOR_ROWS(i, r) acc[i] = add_four(load_word(values + 4 * i), load_word(rest), load_word(rest + 2), acc[i]);
}

SCALPEL_INLINE const int8_t *w8_block_32(const scalpel_w8_layer *layer, const int8_t *values, uint32_t row,
                                         const int16_t *x, void *y, uint32_t r) {
  const int32_t *bias = (const int32_t *)layer->bias + row;
  const uint32_t fours = layer->inputs / 4u;
  int32_t acc[4] = {0};
  FOR_ROWS(i, r) acc[i] = bias[i];
  w8_fours(acc, fours, values, x, r);
  values += 4 * r * fours;
  if (layer->inputs % 4u != 0) {
    w8_rest(acc, layer->inputs % 4u, values, x + 4 * fours, r);
    values += 4 * r;
  }
  for (uint32_t i = 0; i < r; ++i) w8_output(w8_rounding_of(layer), row + i, acc[i], y, row + i);
  return values;
}

SCALPEL_INLINE const int8_t *w8_block_64(const scalpel_w8_layer *layer, const int8_t *values, uint32_t row,
                                         const int16_t *x, void *y, uint32_t r) {
  const int64_t *bias = (const int64_t *)layer->bias + row;
  int64_t acc[4] = {0};
  FOR_ROWS(i, r) acc[i] = bias[i];
  for (uint32_t left = layer->inputs / 4u; left != 0;) {
    const uint32_t some = fours_of_32_bits(left);
    int32_t part[4] = {0};
    w8_fours(part, some, values, x, r);
    FOR_ROWS(i, r) acc[i] += part[i];
    values += 4 * r * some;
    x += 4 * some;
    left -= some;
  }
  if (layer->inputs % 4u != 0) {
    int32_t part[4] = {0};
    w8_rest(part, layer->inputs % 4u, values, x, r);
    FOR_ROWS(i, r) acc[i] += part[i];
    values += 4 * r;
  }
  for (uint32_t i = 0; i < r; ++i) w8_output_64(w8_rounding_of(layer), row + i, acc[i], y, row + i);
  return values;
}

DEFINE_DENSE_FC(w8, 32, int8_t, void)
DEFINE_DENSE_FC(w8, 64, int8_t, void)
