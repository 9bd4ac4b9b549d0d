/* Sparse convolutions, int8 weights: offsets into a padded image, no im2col. */
#include "sums.h"

SCALPEL_INLINE void conv(const scalpel_w8_layer *layer, const scalpel_windows *windows, const int16_t *x, void *y,
                         uint32_t r, bool acc64, byte_sum add_groups) {
  const w8_rounding rounding = w8_rounding_of(layer);
  byte_group_position block = {layer->values, layer->columns};
  const uint16_t *counts = layer->counts;
  for (uint32_t row = 0; row < layer->rows; row += r) {
    const uint32_t rows = layer->rows - row < r ? layer->rows - row : r;
    const uint32_t n = *counts++;
    byte_group_position at = block;
    int32_t bias[4] = {0};
    int64_t bias_64[4] = {0};
    if (acc64) {
      memcpy(bias_64, (const int64_t *)layer->bias + row, rows * sizeof *bias_64);
    } else {
      memcpy(bias, (const int32_t *)layer->bias + row, rows * sizeof *bias);
    }
    for (size_t h = 0; h < windows->height; ++h) {
      const int16_t *from = x + h * windows->x_row_step;
      size_t to = h * windows->y_row_step + row;
      for (uint32_t w = windows->width; w != 0; --w) {
        at = block;
        if (acc64) {
          int64_t acc[4];
          FOR_ROWS(i, r) acc[i] = bias_64[i];
          byte_groups_64(acc, n, &at, from, r, add_groups);
          for (uint32_t i = 0; i < rows; ++i) w8_output_64(rounding, row + i, acc[i], y, to + i);
        } else {
          int32_t acc[4];
          FOR_ROWS(i, r) acc[i] = bias[i];
          add_groups(acc, n, &at, from);
          for (uint32_t i = 0; i < rows; ++i) w8_output(rounding, row + i, acc[i], y, to + i);
        }
        from += windows->x_column_step;
        to += windows->y_pixel_step;
      }
    }
    block = at;
  }
}

#define DEFINE_CONV(SHAPE, ROWS)                                                                       \
  void scalpel_conv_w8_##SHAPE##_acc32(const scalpel_w8_layer *layer, const scalpel_windows *windows,  \
                                       const int16_t *x, void *y) {                                    \
    conv(layer, windows, x, y, ROWS, false, scalpel_sum_##SHAPE##_u16);                                \
  }                                                                                                    \
  void scalpel_conv_w8_##SHAPE##_acc64(const scalpel_w8_layer *layer, const scalpel_windows *windows,  \
                                       const int16_t *x, void *y) {                                    \
    conv(layer, windows, x, y, ROWS, true, scalpel_sum_##SHAPE##_u16);                                 \
  }
DEFINE_CONV(1x4, 1)
DEFINE_CONV(2x4, 2)
DEFINE_CONV(4x4, 4)
