/* Sparse fully connected layers, int16 weights. */
#include "arithmetic.h"

SCALPEL_INLINE void fc(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y, uint32_t r, bool narrow,
                       bool acc64) {
  const int16_t *values = layer->values;
  const uint8_t *columns = layer->columns;
  const uint16_t *counts = layer->counts;
  for (uint32_t row = 0; row < layer->rows; row += r) {
    const uint32_t here = layer->rows - row < r ? layer->rows - row : r;
    int64_t acc[4] = {0, 0, 0, 0};
    for (uint32_t i = 0; i < here; ++i) acc[i] = q15_bias(layer, row + i, acc64);
    for (uint32_t n = *counts++; n != 0; --n) {
      uint16_t column;
      if (narrow) {
        column = *columns;
      } else {
        memcpy(&column, columns, sizeof column);
      }
      columns += narrow ? 1 : 2;
      const uint32_t pair = load_word(x + 2 * (size_t)column);
      for (uint32_t i = 0; i < r; ++i) acc[i] = add_products(load_word(values + 2 * i), pair, acc[i], acc64);
      values += 2 * r;
    }
    for (uint32_t i = 0; i < here; ++i) *y++ = q15_output(layer, acc[i], acc64);
  }
}

#define DEFINE_FC(NAME, ROWS, NARROW, ACC64)                                               \
  void scalpel_fc_q15_##NAME(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y) { \
    fc(layer, x, y, ROWS, NARROW, ACC64);                                                 \
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
