/* Dense convolutions: runs of a padded image, no im2col. */
#include "sums.h"

/* A layer and a block of its rows. */
typedef struct {
  const scalpel_windows *windows;
  const scalpel_runs *runs;
  q15_rounding rounding;
  const int16_t *values;
} row_block;

/* Two rows, one row of pixels, two at a time; past the last pixel, it is computed again. */
static void q15_pixels_32(const row_block *block, const int32_t *bias, const int16_t *x, int16_t *y) {
  const scalpel_windows *windows = block->windows;
  const scalpel_runs *runs = block->runs;
  const uint32_t pairs = runs->length / 2u;
  for (uint32_t w = 0; w < windows->width; w += 2) {
    const uint32_t second = w + 1 < windows->width;
    const int16_t *x1 = x + second * windows->x_column_step;
    int32_t acc[4] = {bias[0], bias[1], bias[0], bias[1]};
    run_windows at = {block->values, {NULL, NULL}};
    for (uint32_t run = 0; run < runs->count; ++run) {
      at.x[0] = x + runs->offsets[run];
      at.x[1] = x1 + runs->offsets[run];
      if (pairs != 0) scalpel_sum_2_rows_2_pixels(acc, pairs, &at);
      if (runs->length % 2u != 0) {
        FOR_ROWS(i, 4) acc[i] = add_products_32(load_word(at.values + i % 2 * 2), load_half(at.x[i / 2]), acc[i]);
        at.values += 4;
      }
    }
    store_word(y, q15_outputs(block->rounding, acc[0], acc[1]));
    store_word(y + second * windows->y_pixel_step, q15_outputs(block->rounding, acc[2], acc[3]));
    x += 2 * (size_t)windows->x_column_step;
    y += 2 * (size_t)windows->y_pixel_step;
  }
}

SCALPEL_INLINE int64_t q15_pixel(const row_block *block, const int16_t *values, uint32_t r, const int16_t *x,
                                 int64_t acc, bool acc64) {
  const scalpel_runs *runs = block->runs;
  for (uint32_t run = 0; run < runs->count; ++run) {
    const int16_t *at = x + runs->offsets[run];
    for (uint32_t n = runs->length / 2u; n != 0; --n) {
      acc = add_products(load_word(values), load_word(at), acc, acc64);
      at += 2;
      values += 2 * r;
    }
    if (runs->length % 2u != 0) {
      acc = add_products(load_word(values), load_half(at), acc, acc64);
      values += 2 * r;
    }
  }
  return acc;
}

/* r interleaved rows, one after the other. */
static void q15_pixels(const row_block *block, const int64_t *bias, uint32_t r, const int16_t *x, int16_t *y,
                       bool acc64) {
  const scalpel_windows *windows = block->windows;
  for (uint32_t w = windows->width; w != 0; --w) {
    for (uint32_t i = 0; i < r; ++i) {
      const int64_t acc = q15_pixel(block, block->values + 2 * i, r, x, bias[i], acc64);
      y[i] = q15_output_64(block->rounding, acc);
    }
    x += windows->x_column_step;
    y += windows->y_pixel_step;
  }
}

SCALPEL_INLINE void w8_pixel(const scalpel_w8_layer *layer, const scalpel_runs *runs, const int8_t *values,
                             uint32_t row, const int16_t *x, void *y, size_t y_at, uint32_t r) {
  int32_t acc[2];
  FOR_ROWS(i, r) acc[i] = layer->bias[row + i];
  for (uint32_t run = 0; run < runs->count; ++run) {
    const int16_t *at = x + runs->offsets[run];
    for (uint32_t left = runs->length; left != 0;) {
      const uint32_t here = left < 4 ? left : 4;
      int16_t four[4] = {0, 0, 0, 0};
      memcpy(four, at, here * sizeof *at);
      FOR_ROWS(i, r) {
        const uint32_t weights = load_word(values);
        acc[i] = add_products_32(even_bytes(weights), load_word(four), acc[i]);
        acc[i] = add_products_32(odd_bytes(weights), load_word(four + 2), acc[i]);
        values += 4;
      }
      at += here;
      left -= here;
    }
  }
  FOR_ROWS(i, r) w8_store(layer, y, y_at + row + i, w8_output(layer, row + i, acc[i]));
}

SCALPEL_INLINE void q15(const scalpel_q15_layer *layer, const scalpel_windows *windows, const scalpel_runs *runs,
                        const int16_t *x, int16_t *y, bool acc64) {
  const uint32_t group_rows = (uint32_t)layer->rows / runs->groups;
  const uint32_t row_values = (uint32_t)runs->count * ((runs->length + 1u) / 2u * 2u);
  row_block block = {windows, runs, q15_rounding_of(layer), layer->values};
  for (uint32_t group = 0; group < runs->groups; ++group) {
    const uint32_t end = (group + 1) * group_rows;
    for (uint32_t row = group * group_rows; row < end;) {
      const uint32_t r = end - row >= 2 ? 2 : 1;
      for (size_t h = 0; h < windows->height; ++h) {
        const int16_t *from = x + h * windows->x_row_step;
        int16_t *to = y + h * windows->y_row_step + row;
        if (acc64) {
          q15_pixels(&block, (const int64_t *)layer->bias + row, r, from, to, true);
        } else if (r == 2) {
          q15_pixels_32(&block, (const int32_t *)layer->bias + row, from, to);
        } else {
          const int64_t bias = ((const int32_t *)layer->bias)[row];
          q15_pixels(&block, &bias, r, from, to, false);
        }
      }
      block.values += r * row_values;
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
