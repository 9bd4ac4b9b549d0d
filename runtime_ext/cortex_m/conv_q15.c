/* Sparse convolutions, int16 weights: offsets into a padded image, no im2col. */
#include "arithmetic.h"

/* One row block at one pixel. */
SCALPEL_INLINE void conv_pixel(const scalpel_q15_layer *layer, uint32_t row, uint32_t n, const int16_t *values,
                               const uint16_t *columns, const int16_t *x, int16_t *y, uint32_t r, bool acc64) {
  const uint32_t here = layer->rows - row < r ? layer->rows - row : r;
  int64_t acc[4] = {0, 0, 0, 0};
  for (uint32_t i = 0; i < here; ++i) acc[i] = q15_bias(layer, row + i, acc64);
  for (; n != 0; --n) {
    const uint32_t pair = load_word(x + 2 * (size_t)*columns++);
    for (uint32_t i = 0; i < r; ++i) acc[i] = add_products(load_word(values + 2 * i), pair, acc[i], acc64);
    values += 2 * r;
  }
  for (uint32_t i = 0; i < here; ++i) y[row + i] = q15_output(layer, acc[i], acc64);
}

SCALPEL_INLINE void conv(const scalpel_q15_layer *layer, const scalpel_windows *windows, const int16_t *x, int16_t *y,
                         uint32_t r, bool acc64) {
  const int16_t *values = layer->values;
  const uint16_t *columns = layer->columns;
  const uint16_t *counts = layer->counts;
  for (uint32_t row = 0; row < layer->rows; row += r) {
    const uint32_t n = *counts++;
    for (uint32_t h = 0; h < windows->height; ++h) {
      for (uint32_t w = 0; w < windows->width; ++w) {
        conv_pixel(layer, row, n, values, columns, x + (size_t)h * windows->x_row_step + (size_t)w * windows->x_column_step,
                   y + (size_t)h * windows->y_row_step + (size_t)w * windows->y_pixel_step, r, acc64);
      }
    }
    values += 2 * r * n;
    columns += n;
  }
}

#define DEFINE_CONV(NAME, ROWS, ACC64)                                                             \
  void scalpel_conv_q15_##NAME(const scalpel_q15_layer *layer, const scalpel_windows *windows, \
                               const int16_t *x, int16_t *y) {                                     \
    conv(layer, windows, x, y, ROWS, ACC64);                                                       \
  }
DEFINE_CONV(1x2_acc32, 1, false)
DEFINE_CONV(2x2_acc32, 2, false)
DEFINE_CONV(4x2_acc32, 4, false)
DEFINE_CONV(1x2_acc64, 1, true)
DEFINE_CONV(2x2_acc64, 2, true)
DEFINE_CONV(4x2_acc64, 4, true)
