/* Dense fully connected layers. */
#include "arithmetic.h"

/* A block of r rows from `row` on; gives back where the weights of the next one are. */
SCALPEL_INLINE const int16_t *q15_block(const scalpel_q15_layer *layer, const int16_t *values, uint32_t row,
                                        const int16_t *x, int16_t *y, uint32_t r, bool acc64) {
  int64_t acc[4];
  for (uint32_t i = 0; i < r; ++i) acc[i] = q15_bias(layer, row + i, acc64);
  for (uint32_t n = layer->inputs / 2u; n != 0; --n) {
    const uint32_t pair = load_word(x);
    for (uint32_t i = 0; i < r; ++i) acc[i] = add_products(load_word(values + 2 * i), pair, acc[i], acc64);
    x += 2;
    values += 2 * r;
  }
  if (layer->inputs % 2u != 0) {
    const uint32_t pair = (uint16_t)*x;
    for (uint32_t i = 0; i < r; ++i) acc[i] = add_products(load_word(values + 2 * i), pair, acc[i], acc64);
    values += 2 * r;
  }
  for (uint32_t i = 0; i < r; ++i) y[row + i] = q15_output(layer, acc[i], acc64);
  return values;
}

SCALPEL_INLINE void q15(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y, bool acc64) {
  const int16_t *values = layer->values;
  uint32_t row = 0;
  for (; row + 4 <= layer->rows; row += 4) values = q15_block(layer, values, row, x, y, 4, acc64);
  if (row + 2 <= layer->rows) {
    values = q15_block(layer, values, row, x, y, 2, acc64);
    row += 2;
  }
  if (row < layer->rows) q15_block(layer, values, row, x, y, 1, acc64);
}

void scalpel_dense_fc_q15_acc32(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y) {
  q15(layer, x, y, false);
}

void scalpel_dense_fc_q15_acc64(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y) {
  q15(layer, x, y, true);
}

SCALPEL_INLINE const int8_t *w8_block(const scalpel_w8_layer *layer, const int8_t *values, uint32_t row,
                                      const int16_t *x, void *y, uint32_t r) {
  int32_t acc[4];
  for (uint32_t i = 0; i < r; ++i) acc[i] = layer->bias[row + i];
  for (uint32_t n = layer->inputs / 4u; n != 0; --n) {
    const uint32_t first = load_word(x);
    const uint32_t second = load_word(x + 2);
    for (uint32_t i = 0; i < r; ++i) {
      const uint32_t weights = load_word(values);
      acc[i] = add_products_32(even_bytes(weights), first, acc[i]);
      acc[i] = add_products_32(odd_bytes(weights), second, acc[i]);
      values += 4;
    }
    x += 4;
  }
  if (layer->inputs % 4u != 0) {
    int16_t rest[4] = {0, 0, 0, 0};
    for (uint32_t i = 0; i < layer->inputs % 4u; ++i) rest[i] = x[i];
    for (uint32_t i = 0; i < r; ++i) {
      const uint32_t weights = load_word(values);
      acc[i] = add_products_32(even_bytes(weights), load_word(rest), acc[i]);
      acc[i] = add_products_32(odd_bytes(weights), load_word(rest + 2), acc[i]);
      values += 4;
    }
  }
  for (uint32_t i = 0; i < r; ++i) w8_store(layer, y, row + i, w8_output(layer, row + i, acc[i]));
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
