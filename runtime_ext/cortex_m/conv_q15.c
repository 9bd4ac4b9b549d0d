/* Sparse convolutions, int16 weights: offsets into a padded image, no im2col. */
#include "sums.h"

/* A row block of r rows: its bias, and where its outputs go; those of a block that M cuts short lie aside first. */
typedef struct {
  const scalpel_windows *windows;
  q15_rounding rounding;
  const int16_t *values;
  const uint16_t *columns;
  uint32_t n;
  uint32_t rows; /* of the r */
} row_block;

SCALPEL_INLINE void store(const row_block *block, int16_t *y, const int32_t *acc, uint32_t r) {
  if (block->rows == r) {
    for (uint32_t i = 0; i < r; i += 2) store_word(y + i, q15_outputs(block->rounding, acc[i], acc[i + 1]));
  } else {
    for (uint32_t i = 0; i < block->rows; ++i) y[i] = q15_output(block->rounding, acc[i]);
  }
}

/* Of one row of pixels, from windows that begin at x. */
static row_of_tiles tiles_of(const row_block *block, const int32_t *bias, const int16_t *x, int16_t *y) {
  const scalpel_windows *windows = block->windows;
  const row_of_tiles row = {
      block->values, block->columns,            block->n,       x,
      2 * windows->x_column_step, y,            2 * windows->y_pixel_step, windows->width,
      block->rounding, {bias[0], bias[1], bias[2], bias[3]}};
  return row;
}

/* Outputs of one row of pixels. Past the last pixel of a row, it is computed again. */
static void pixels_4x2(const row_block *block, const int32_t *bias, const int16_t *x, int16_t *y) {
  const scalpel_windows *windows = block->windows;
  if (block->rows == 4 && windows->width != 0) {
    const row_of_tiles row = tiles_of(block, bias, x, y);
    scalpel_tiles_4x2(&row);
    return;
  }
  for (uint32_t w = windows->width; w != 0; --w) {
    int32_t acc[4] = {bias[0], bias[1], bias[2], bias[3]};
    group_position at = {block->values, (const uint8_t *)block->columns};
    scalpel_sum_4x2_u16(acc, block->n, &at, x);
    store(block, y, acc, 4);
    x += windows->x_column_step;
    y += windows->y_pixel_step;
  }
}

static void pixels_2x2(const row_block *block, const int32_t *bias, const int16_t *x, int16_t *y) {
  const scalpel_windows *windows = block->windows;
  for (uint32_t w = 0; w < windows->width; w += 2) {
    const uint32_t second = w + 1 < windows->width;
    int32_t acc[4] = {bias[0], bias[1], bias[0], bias[1]};
    const group_windows at = {block->values, block->columns, {x, x + second * windows->x_column_step, NULL, NULL}};
    scalpel_sum_2x2_2_pixels(acc, block->n, &at);
    store(block, y, acc, 2);
    store(block, y + second * windows->y_pixel_step, acc + 2 * second, 2);
    x += 2 * (size_t)windows->x_column_step;
    y += 2 * (size_t)windows->y_pixel_step;
  }
}

static void pixels_1x2(const row_block *block, const int32_t *bias, const int16_t *x, int16_t *y) {
  const scalpel_windows *windows = block->windows;
  const uint32_t tiles = windows->width / 4u;
  const uint32_t rest = windows->width % 4u;
  if (tiles != 0) {
    row_of_tiles row = tiles_of(block, bias, x, y);
    row.tiles = tiles;
    scalpel_tiles_1x2(&row);
  }
  if (rest != 0) {
    const size_t steps[4] = {0, rest < 2 ? 0 : 1, rest < 3 ? rest - 1 : 2, rest - 1};
    int32_t acc[4] = {bias[0], bias[0], bias[0], bias[0]};
    group_windows at = {block->values, block->columns, {NULL, NULL, NULL, NULL}};
    x += 4 * (size_t)tiles * windows->x_column_step;
    y += 4 * (size_t)tiles * windows->y_pixel_step;
    FOR_ROWS(i, 4) at.x[i] = x + steps[i] * windows->x_column_step;
    scalpel_sum_1x2_4_pixels(acc, block->n, &at);
    FOR_ROWS(i, 4) y[steps[i] * windows->y_pixel_step] = q15_output(block->rounding, acc[i]);
  }
}

SCALPEL_INLINE void conv_32(const scalpel_q15_layer *layer, const scalpel_windows *windows, const int16_t *x,
                            int16_t *y, uint32_t r) {
  const int32_t *bias = layer->bias;
  const uint16_t *counts = layer->counts;
  row_block block = {windows, q15_rounding_of(layer), layer->values, layer->columns, 0, r};
  for (uint32_t row = 0; row < layer->rows; row += r) {
    int32_t own_bias[4] = {0};
    if (layer->rows - row < r) block.rows = layer->rows - row;
    memcpy(own_bias, bias + row, block.rows * sizeof *bias);
    block.n = *counts++;
    for (size_t h = 0; h < windows->height; ++h) {
      const int16_t *from = x + h * windows->x_row_step;
      int16_t *to = y + h * windows->y_row_step + row;
      if (r == 4) {
        pixels_4x2(&block, own_bias, from, to);
      } else if (r == 2) {
        pixels_2x2(&block, own_bias, from, to);
      } else {
        pixels_1x2(&block, own_bias, from, to);
      }
    }
    block.values += 2 * r * block.n;
    block.columns += block.n;
  }
}

SCALPEL_INLINE void conv_64(const scalpel_q15_layer *layer, const scalpel_windows *windows, const int16_t *x,
                            int16_t *y, uint32_t r) {
  const q15_rounding rounding = q15_rounding_of(layer);
  const int16_t *values = layer->values;
  const uint16_t *columns = layer->columns;
  const uint16_t *counts = layer->counts;
  const int64_t *bias = layer->bias;
  for (uint32_t row = 0; row < layer->rows; row += r) {
    const uint32_t rows = layer->rows - row < r ? layer->rows - row : r;
    const uint32_t n = *counts++;
    int64_t own_bias[4] = {0};
    memcpy(own_bias, bias + row, rows * sizeof *bias);
    for (size_t h = 0; h < windows->height; ++h) {
      const int16_t *from = x + h * windows->x_row_step;
      int16_t *to = y + h * windows->y_row_step + row;
      for (uint32_t w = windows->width; w != 0; --w) {
        const int16_t *weights = values;
        int64_t acc[4];
        FOR_ROWS(i, r) acc[i] = own_bias[i];
        UNROLLED
        for (uint32_t group = 0; group < n; ++group) {
          const uint32_t pair = load_word(from + 2 * (size_t)columns[group]);
          FOR_ROWS(i, r) acc[i] = add_products_64(load_word(weights + 2 * i), pair, acc[i]);
          weights += 2 * r;
        }
        FOR_ROWS(i, r) {
          if (i < rows) to[i] = q15_output_64(rounding, acc[i]);
        }
        from += windows->x_column_step;
        to += windows->y_pixel_step;
      }
    }
    values += 2 * r * n;
    columns += n;
  }
}

#define DEFINE_CONV(SHAPE, ROWS)                                                                                    \
  void scalpel_conv_q15_##SHAPE##_acc32(const scalpel_q15_layer *layer, const scalpel_windows *windows,             \
                                        const int16_t *x, int16_t *y) {                                             \
    conv_32(layer, windows, x, y, ROWS);                                                                            \
  }                                                                                                                 \
  void scalpel_conv_q15_##SHAPE##_acc64(const scalpel_q15_layer *layer, const scalpel_windows *windows,             \
                                        const int16_t *x, int16_t *y) {                                             \
    conv_64(layer, windows, x, y, ROWS);                                                                            \
  }
DEFINE_CONV(1x2, 1)
DEFINE_CONV(2x2, 2)
DEFINE_CONV(4x2, 4)
