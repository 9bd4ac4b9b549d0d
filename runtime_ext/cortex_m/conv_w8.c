/* Sparse convolutions, int8 weights: offsets into a padded image, no im2col. */
#include "arithmetic.h"

/* One row block at one pixel. */
SCALPEL_INLINE void conv_pixel(const scalpel_w8_layer *layer, uint32_t row, uint32_t n, const int8_t *values,
                               const uint16_t *columns, const int16_t *x, void *y, size_t y_at, uint32_t r) {
  const uint32_t here = layer->rows - row < r ? layer->rows - row : r;
  int32_t acc[4] = {0, 0, 0, 0};
  FOR_ROWS(i, here) acc[i] = layer->bias[row + i];
  for (; n != 0; --n) {
    const int16_t *at = x + 4 * (size_t)*columns++;
    const uint32_t first = load_word(at);
    const uint32_t second = load_word(at + 2);
    FOR_ROWS(i, r) {
      const uint32_t weights = load_word(values);
      acc[i] = add_products_32(even_bytes(weights), first, acc[i]);
      acc[i] = add_products_32(odd_bytes(weights), second, acc[i]);
      values += 4;
    }
  }
  FOR_ROWS(i, here) w8_store(layer, y, y_at + row + i, w8_output(layer, row + i, acc[i]));
}

SCALPEL_INLINE void conv(const scalpel_w8_layer *layer, const scalpel_windows *windows, const int16_t *x, void *y,
                         uint32_t r) {
  const int8_t *values = layer->values;
  const uint16_t *columns = layer->columns;
  const uint16_t *counts = layer->counts;
  for (uint32_t row = 0; row < layer->rows; row += r) {
    const uint32_t n = *counts++;
    for (uint32_t h = 0; h < windows->height; ++h) {
      for (uint32_t w = 0; w < windows->width; ++w) {
        conv_pixel(layer, row, n, values, columns,
                   x + (size_t)h * windows->x_row_step + (size_t)w * windows->x_column_step, y,
                   (size_t)h * windows->y_row_step + (size_t)w * windows->y_pixel_step, r);
      }
    }
    values += 4 * r * n;
    columns += n;
  }
}

#define DEFINE_CONV(NAME, ROWS)                                                                                     \
  void scalpel_conv_w8_##NAME(const scalpel_w8_layer *layer, const scalpel_windows *windows, const int16_t *x, \
                              void *y) {                                                                            \
    conv(layer, windows, x, y, ROWS);                                                                               \
  }
DEFINE_CONV(1x4, 1)
DEFINE_CONV(2x4, 2)
DEFINE_CONV(4x4, 4)
