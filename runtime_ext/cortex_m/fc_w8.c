/* Sparse fully connected layers, int8 weights. */
#include "sums.h"

SCALPEL_INLINE void fc(const scalpel_w8_layer *layer, const int16_t *x, void *y, uint32_t r, bool acc64,
                       byte_sum add_groups) {
  const w8_rounding rounding = w8_rounding_of(layer);
  byte_group_position at = {layer->values, layer->columns};
  const uint16_t *counts = layer->counts;
  for (uint32_t row = 0; row < layer->rows; row += r) {
    const uint32_t rows = layer->rows - row < r ? layer->rows - row : r;
    if (acc64) {
      const int64_t *bias = (const int64_t *)layer->bias + row;
      int64_t acc[4];
      FOR_ROWS(i, r) acc[i] = i < rows ? bias[i] : 0;
      byte_groups_64(acc, *counts++, &at, x, r, add_groups);
      for (uint32_t i = 0; i < rows; ++i) w8_output_64(rounding, row + i, acc[i], y, row + i);
    } else {
      const int32_t *bias = (const int32_t *)layer->bias + row;
      int32_t acc[4];
      FOR_ROWS(i, r) acc[i] = i < rows ? bias[i] : 0;
      add_groups(acc, *counts++, &at, x);
      for (uint32_t i = 0; i < rows; ++i) w8_output(rounding, row + i, acc[i], y, row + i);
    }
  }
}

#define DEFINE_FC(NAME, ROWS)                                                                   \
  void scalpel_fc_w8_##NAME##_acc32(const scalpel_w8_layer *layer, const int16_t *x, void *y) { \
    fc(layer, x, y, ROWS, false, scalpel_sum_##NAME);                                           \
  }                                                                                             \
  void scalpel_fc_w8_##NAME##_acc64(const scalpel_w8_layer *layer, const int16_t *x, void *y) { \
    fc(layer, x, y, ROWS, true, scalpel_sum_##NAME);                                            \
  }
DEFINE_FC(1x4_u8, 1)
DEFINE_FC(2x4_u8, 2)
DEFINE_FC(4x4_u8, 4)
DEFINE_FC(1x4_u16, 1)
DEFINE_FC(2x4_u16, 2)
DEFINE_FC(4x4_u16, 4)
