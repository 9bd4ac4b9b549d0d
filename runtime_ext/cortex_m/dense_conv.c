/* Dense convolutions: runs of a padded image, no im2col. */
#include "sums.h"

/* What does not change from one row of pixels to the next. */
typedef struct {
  const scalpel_windows *windows;
  const scalpel_runs *runs;
  q15_rounding rounding;
  const int16_t *values; /* of the rows at hand */
} q15_rows;

/* Two rows, one row of pixels, two at a time; past the last pixel, it is computed again. */
static void q15_two_rows(const q15_rows *rows, const int32_t *bias, const int16_t *x, int16_t *y) {
  const scalpel_windows *windows = rows->windows;
  const scalpel_runs *runs = rows->runs;
  run_windows at = {runs->count, runs->length, runs->offsets, {x, x}, rows->values};
  for (uint32_t w = 0; w < windows->width; w += 2) {
    const uint32_t second = w + 1 < windows->width;
    int32_t acc[4] = {bias[0], bias[1], bias[0], bias[1]};
    at.x[1] = at.x[0] + second * windows->x_column_step;
    scalpel_sum_2_rows_2_pixels(acc, &at);
    store_word(y, q15_outputs(rows->rounding, acc[0], acc[1]));
    store_word(y + second * windows->y_pixel_step, q15_outputs(rows->rounding, acc[2], acc[3]));
    at.x[0] += 2 * (size_t)windows->x_column_step;
    y += 2 * (size_t)windows->y_pixel_step;
  }
}

/* One row alone at one pixel. */
static int32_t q15_sum_32(const scalpel_runs *runs, const int16_t *values, const int16_t *x, int32_t acc) {
  for (uint32_t run = 0; run < runs->count; ++run) {
    const int16_t *at = x + runs->offsets[run];
    for (uint32_t k = 0; k < runs->length; k += 2) {
      acc = add_products_32(load_word(values), load_some(at + k, runs->length - k), acc);
      values += 2;
    }
  }
  return acc;
}

static void q15_one_row(const q15_rows *rows, int32_t bias, const int16_t *x, int16_t *y) {
  for (uint32_t w = rows->windows->width; w != 0; --w) {
    *y = q15_output(rows->rounding, q15_sum_32(rows->runs, rows->values, x, bias));
    x += rows->windows->x_column_step;
    y += rows->windows->y_pixel_step;
  }
}

/* r interleaved rows, one row of pixels. */
SCALPEL_INLINE void q15_rows_64(const q15_rows *rows, const int64_t *bias, uint32_t r, const int16_t *x, int16_t *y) {
  const scalpel_runs *runs = rows->runs;
  for (uint32_t w = rows->windows->width; w != 0; --w) {
    const int16_t *values = rows->values;
    int64_t acc[2] = {0, 0};
    FOR_ROWS(i, r) acc[i] = bias[i];
    for (uint32_t run = 0; run < runs->count; ++run) {
      const int16_t *at = x + runs->offsets[run];
      UNROLLED
      for (uint32_t n = runs->length / 2u; n != 0; --n) {
        const uint32_t pair = load_word(at);
        FOR_ROWS(i, r) acc[i] = add_products_64(load_word(values + 2 * i), pair, acc[i]);
        at += 2;
        values += 2 * r;
      }
      if (runs->length % 2u != 0) {
        FOR_ROWS(i, r) acc[i] = add_products_64(load_word(values + 2 * i), load_half(at), acc[i]);
        values += 2 * r;
      }
    }
    FOR_ROWS(i, r) y[i] = q15_output_64(rows->rounding, acc[i]);
    x += rows->windows->x_column_step;
    y += rows->windows->y_pixel_step;
  }
}

SCALPEL_INLINE void q15(const scalpel_q15_layer *layer, const scalpel_windows *windows, const scalpel_runs *runs,
                        const int16_t *x, int16_t *y, bool acc64) {
  const uint32_t group_rows = (uint32_t)layer->rows / runs->groups;
  const uint32_t row_values = (uint32_t)runs->count * ((runs->length + 1u) / 2u * 2u);
  q15_rows rows = {windows, runs, q15_rounding_of(layer), layer->values};
  for (uint32_t group = 0; group < runs->groups; ++group) {
    const uint32_t end = (group + 1) * group_rows;
    for (uint32_t row = group * group_rows; row < end;) {
      const uint32_t r = end - row >= 2 ? 2 : 1;
      for (size_t h = 0; h < windows->height; ++h) {
        const int16_t *from = x + h * windows->x_row_step;
        int16_t *to = y + h * windows->y_row_step + row;
        if (acc64 && r == 2) {
          q15_rows_64(&rows, (const int64_t *)layer->bias + row, 2, from, to);
        } else if (acc64) {
          q15_rows_64(&rows, (const int64_t *)layer->bias + row, 1, from, to);
        } else if (r == 2) {
          q15_two_rows(&rows, (const int32_t *)layer->bias + row, from, to);
        } else {
          q15_one_row(&rows, ((const int32_t *)layer->bias)[row], from, to);
        }
      }
      rows.values += r * row_values;
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

/* acc[2 * i + row] += row of the weights with window i of two, in parts that 32 bits hold. */
static void w8_sum_64(int64_t *acc, const byte_run_windows *at) {
  byte_run_windows part = *at;
  part.count = 1;
  for (uint32_t run = 0; run < at->count; ++run) {
    for (uint32_t k = 0; k < at->length; k += part.length) {
      const uint32_t offset = at->offsets[run] + k;
      int32_t sums[4] = {0};
      part.offsets = &offset;
      part.length = at->length - k < 4 * FOURS_OF_32_BITS ? at->length - k : 4 * FOURS_OF_32_BITS;
      scalpel_sum_w8_2_rows_2_pixels(sums, &part);
      FOR_ROWS(i, 4) acc[i] += sums[i];
      part.values += 8 * ((part.length + 3) / 4);
    }
  }
}

/* Two rows of int8 weights, one row of pixels, two at a time; past the last pixel, it is computed again. */
SCALPEL_INLINE void w8_two_rows(const scalpel_w8_layer *layer, const scalpel_windows *windows, byte_run_windows at,
                                uint32_t row, void *y, size_t y_at, bool acc64) {
  const w8_rounding rounding = w8_rounding_of(layer);
  for (uint32_t w = 0; w < windows->width; w += 2) {
    const uint32_t second = w + 1 < windows->width;
    const size_t next = second * windows->y_pixel_step;
    at.x[1] = at.x[0] + second * windows->x_column_step;
    if (acc64) {
      const int64_t *bias = (const int64_t *)layer->bias + row;
      int64_t acc[4] = {bias[0], bias[1], bias[0], bias[1]};
      w8_sum_64(acc, &at);
      for (uint32_t i = 0; i < 4; ++i) w8_output_64(rounding, row + i % 2, acc[i], y, y_at + i / 2 * next + i % 2);
    } else {
      const int32_t *bias = (const int32_t *)layer->bias + row;
      int32_t acc[4] = {bias[0], bias[1], bias[0], bias[1]};
      scalpel_sum_w8_2_rows_2_pixels(acc, &at);
      for (uint32_t i = 0; i < 4; ++i) w8_output(rounding, row + i % 2, acc[i], y, y_at + i / 2 * next + i % 2);
    }
    at.x[0] += 2 * (size_t)windows->x_column_step;
    y_at += 2 * (size_t)windows->y_pixel_step;
  }
}

SCALPEL_INLINE void w8_one_row(const scalpel_w8_layer *layer, const scalpel_windows *windows, byte_run_windows at,
                               uint32_t row, void *y, size_t y_at, bool acc64) {
  const w8_rounding rounding = w8_rounding_of(layer);
  for (uint32_t w = windows->width; w != 0; --w) {
    const int8_t *values = at.values;
    int64_t wide = acc64 ? ((const int64_t *)layer->bias)[row] : 0;
    int32_t acc = acc64 ? 0 : ((const int32_t *)layer->bias)[row];
    for (uint32_t run = 0; run < at.count; ++run) {
      const int16_t *x = at.x[0] + at.offsets[run];
      for (uint32_t k = 0; k < at.length; k += 4) {
        const uint32_t left = at.length - k;
        const uint32_t second = left > 2 ? load_some(x + k + 2, left - 2) : 0;
        acc = add_four(load_word(values), load_some(x + k, left), second, acc);
        if (acc64) {
          wide += acc;
          acc = 0;
        }
        values += 4;
      }
    }
    if (acc64) {
      w8_output_64(rounding, row, wide, y, y_at);
    } else {
      w8_output(rounding, row, acc, y, y_at);
    }
    at.x[0] += windows->x_column_step;
    y_at += windows->y_pixel_step;
  }
}

SCALPEL_INLINE void w8(const scalpel_w8_layer *layer, const scalpel_windows *windows, const scalpel_runs *runs,
                       const int16_t *x, void *y, bool acc64) {
  const uint32_t group_rows = (uint32_t)layer->rows / runs->groups;
  const uint32_t row_values = (uint32_t)runs->count * ((runs->length + 3u) / 4u * 4u);
  byte_run_windows at = {runs->count, runs->length, runs->offsets, {x, x}, layer->values};
  for (uint32_t group = 0; group < runs->groups; ++group) {
    const uint32_t end = (group + 1) * group_rows;
    for (uint32_t row = group * group_rows; row < end;) {
      const uint32_t r = end - row >= 2 ? 2 : 1;
      for (size_t h = 0; h < windows->height; ++h) {
        const size_t to = h * windows->y_row_step + row;
        at.x[0] = x + h * windows->x_row_step;
        if (r == 2) {
          w8_two_rows(layer, windows, at, row, y, to, acc64);
        } else {
          w8_one_row(layer, windows, at, row, y, to, acc64);
        }
      }
      at.values += r * row_values;
      row += r;
    }
    x += runs->group_channels;
  }
}

void scalpel_dense_conv_w8_acc32(const scalpel_w8_layer *layer, const scalpel_windows *windows,
                                 const scalpel_runs *runs, const int16_t *x, void *y) {
  w8(layer, windows, runs, x, y, false);
}

void scalpel_dense_conv_w8_acc64(const scalpel_w8_layer *layer, const scalpel_windows *windows,
                                 const scalpel_runs *runs, const int16_t *x, void *y) {
  w8(layer, windows, runs, x, y, true);
}
