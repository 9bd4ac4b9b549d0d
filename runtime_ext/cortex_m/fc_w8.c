/* Sparse fully connected layers, int8 weights. */
#include "arithmetic.h"

SCALPEL_INLINE void fc(const scalpel_w8_layer *layer, const int16_t *x, void *y, uint32_t r, bool narrow) {
  const int8_t *values = layer->values;
  const uint8_t *columns = layer->columns;
  const uint16_t *counts = layer->counts;
  for (uint32_t row = 0; row < layer->rows; row += r) {
    const uint32_t here = layer->rows - row < r ? layer->rows - row : r;
    int32_t acc[4] = {0, 0, 0, 0};
    FOR_ROWS(i, here) acc[i] = layer->bias[row + i];
    for (uint32_t n = *counts++; n != 0; --n) {
      uint16_t column;
      if (narrow) {
        column = *columns;
      } else {
        memcpy(&column, columns, sizeof column);
      }
      columns += narrow ? 1 : 2;
      const int16_t *at = x + 4 * (size_t)column;
      const uint32_t first = load_word(at);
      const uint32_t second = load_word(at + 2);
      FOR_ROWS(i, r) {
        const uint32_t weights = load_word(values);
        acc[i] = add_products_32(even_bytes(weights), first, acc[i]);
        acc[i] = add_products_32(odd_bytes(weights), second, acc[i]);
        values += 4;
      }
    }
    FOR_ROWS(i, here) w8_store(layer, y, row + i, w8_output(layer, row + i, acc[i]));
  }
}

#define DEFINE_FC(NAME, ROWS, NARROW)                                                 \
  void scalpel_fc_w8_##NAME(const scalpel_w8_layer *layer, const int16_t *x, void *y) { \
    fc(layer, x, y, ROWS, NARROW);                                                   \
  }
DEFINE_FC(1x4_u8, 1, true)
DEFINE_FC(2x4_u8, 2, true)
DEFINE_FC(4x4_u8, 4, true)
DEFINE_FC(1x4_u16, 1, false)
DEFINE_FC(2x4_u16, 2, false)
DEFINE_FC(4x4_u16, 4, false)
