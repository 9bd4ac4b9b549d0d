/* Dense convolutions: runs of a padded image, no im2col. */
#include "arithmetic.h"

SCALPEL_INLINE void q15_pixel(const scalpel_q15_layer *layer, const scalpel_runs *runs, const int16_t *values,
                              uint32_t row, const int16_t *x, int16_t *y, uint32_t r, bool acc64) {
  int64_t acc[2];
  for (uint32_t i = 0; i < r; ++i) acc[i] = q15_bias(layer, row + i, acc64);
  for (uint32_t run = 0; run < runs->count; ++run) {
    const int16_t *at = x + runs->offsets[run];
    for (uint32_t n = runs->length / 2u; n != 0; --n) {
      const uint32_t pair = load_word(at);
      for (uint32_t i = 0; i < r; ++i) acc[i] = add_products(load_word(values + 2 * i), pair, acc[i], acc64);
      at += 2;
      values += 2 * r;
    }
    if (runs->length % 2u != 0) {
      const uint32_t pair = (uint16_t)*at;
      for (uint32_t i = 0; i < r; ++i) acc[i] = add_products(load_word(values + 2 * i), pair, acc[i], acc64);
      values += 2 * r;
    }
  }
  for (uint32_t i = 0; i < r; ++i) y[row + i] = q15_output(layer, acc[i], acc64);
}

SCALPEL_INLINE void w8_pixel(const scalpel_w8_layer *layer, const scalpel_runs *runs, const int8_t *values,
                             uint32_t row, const int16_t *x, void *y, size_t y_at, uint32_t r) {
  int32_t acc[2];
  for (uint32_t i = 0; i < r; ++i) acc[i] = layer->bias[row + i];
  for (uint32_t run = 0; run < runs->count; ++run) {
    const int16_t *at = x + runs->offsets[run];
    for (uint32_t left = runs->length; left != 0;) {
      const uint32_t here = left < 4 ? left : 4;
      int16_t four[4] = {0, 0, 0, 0};
      memcpy(four, at, here * sizeof *at);
      for (uint32_t i = 0; i < r; ++i) {
        const uint32_t weights = load_word(values);
        acc[i] = add_products_32(even_bytes(weights), load_word(four), acc[i]);
        acc[i] = add_products_32(odd_bytes(weights), load_word(four + 2), acc[i]);
        values += 4;
      }
      at += here;
      left -= here;
    }
  }
  for (uint32_t i = 0; i < r; ++i) w8_store(layer, y, y_at + row + i, w8_output(layer, row + i, acc[i]));
}

SCALPEL_INLINE void q15(const scalpel_q15_layer *layer, const scalpel_windows *windows, const scalpel_runs *runs,
                        const int16_t *x, int16_t *y, bool acc64) {
  const uint32_t group_rows = (uint32_t)layer->rows / runs->groups;
  const uint32_t row_values = (uint32_t)runs->count * ((runs->length + 1u) / 2u * 2u);
  const int16_t *values = layer->values;
  for (uint32_t group = 0; group < runs->groups; ++group) {
    const uint32_t end = (group + 1) * group_rows;
    for (uint32_t row = group * group_rows; row < end;) {
      const uint32_t r = end - row >= 2 ? 2 : 1;
      for (uint32_t h = 0; h < windows->height; ++h) {
        const int16_t *from = x + (size_t)h * windows->x_row_step;
        int16_t *to = y + (size_t)h * windows->y_row_step;
        for (uint32_t w = 0; w < windows->width; ++w) {
          if (r == 2) {
            q15_pixel(layer, runs, values, row, from, to, 2, acc64);
          } else {
            q15_pixel(layer, runs, values, row, from, to, 1, acc64);
          }
          from += windows->x_column_step;
          to += windows->y_pixel_step;
        }
      }
      values += r * row_values;
      row += r;
    }
    x += runs->group_channels;
  }
}

void scalpel_dense_conv_q15_acc32(const scalpel_q15_layer *layer, const scalpel_windows *windows,
                                  const scalpel_runs *runs, const int16_t *x, int16_t *y) {
  q15(layer, windows, runs, x, y, false);
}

void scalpel_dense_conv_q15_acc64(const scalpel_q15_layer *layer, const scalpel_windows *windows,
                                  const scalpel_runs *runs, const int16_t *x, int16_t *y) {
  q15(layer, windows, runs, x, y, true);
}

void scalpel_dense_conv_w8(const scalpel_w8_layer *layer, const scalpel_windows *windows, const scalpel_runs *runs,
                           const int16_t *x, void *y) {
  const uint32_t group_rows = (uint32_t)layer->rows / runs->groups;
  const uint32_t row_values = (uint32_t)runs->count * ((runs->length + 3u) / 4u * 4u);
  const int8_t *values = layer->values;
  for (uint32_t group = 0; group < runs->groups; ++group) {
    const uint32_t end = (group + 1) * group_rows;
    for (uint32_t row = group * group_rows; row < end;) {
      const uint32_t r = end - row >= 2 ? 2 : 1;
      for (uint32_t h = 0; h < windows->height; ++h) {
        const int16_t *from = x + (size_t)h * windows->x_row_step;
        size_t to = (size_t)h * windows->y_row_step;
        for (uint32_t w = 0; w < windows->width; ++w) {
          if (r == 2) {
            w8_pixel(layer, runs, values, row, from, y, to, 2);
          } else {
            w8_pixel(layer, runs, values, row, from, y, to, 1);
          }
          from += windows->x_column_step;
          to += windows->y_pixel_step;
        }
      }
      values += r * row_values;
      row += r;
    }
    x += runs->group_channels;
  }
}
