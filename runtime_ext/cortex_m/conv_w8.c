/* Sparse convolutions, int8 weights: offsets into a padded image, no im2col. */
#include "sums.h"

/* A row block of r rows. */
typedef struct {
  const scalpel_w8_layer *layer;
  const scalpel_windows *windows;
  w8_rounding rounding;
  byte_group_position groups;
  uint32_t n;
  uint32_t row;
  uint32_t rows; /* of the r */
} row_block;

/* A row of pixels, one by one. */
SCALPEL_INLINE void pixels(const row_block *block, const int16_t *x, void *y, size_t to, uint32_t r, bool acc64,
                           byte_sum add_groups) {
  const uint32_t rows = block->rows < r ? block->rows : r;
  for (uint32_t w = block->windows->width; w != 0; --w) {
    byte_group_position at = block->groups;
    if (acc64) {
      const int64_t *bias = (const int64_t *)block->layer->bias + block->row;
      int64_t acc[4];
      FOR_ROWS(i, r) acc[i] = i < rows ? bias[i] : 0;
      byte_groups_64(acc, block->n, &at, x, r, add_groups);
      for (uint32_t i = 0; i < rows; ++i) w8_output_64(block->rounding, block->row + i, acc[i], y, to + i);
    } else {
      const int32_t *bias = (const int32_t *)block->layer->bias + block->row;
      int32_t acc[4];
      FOR_ROWS(i, r) acc[i] = i < rows ? bias[i] : 0;
      add_groups(acc, block->n, &at, x);
      for (uint32_t i = 0; i < rows; ++i) w8_output(block->rounding, block->row + i, acc[i], y, to + i);
    }
    x += block->windows->x_column_step;
    to += block->windows->y_pixel_step;
  }
}

typedef void (*tiles)(const byte_row_of_tiles *row);

/* Describes a block for tiles, if they can take it: the upper words of products must be enough for its shifts, and hold
 * the zero point beside them. */
static bool takes_tiles(const row_block *block, uint32_t r, byte_row_of_tiles *row) {
  const scalpel_w8_layer *layer = block->layer;
  if (block->rows < r || block->windows->width < 4 / r) return false;
  for (uint32_t i = 0; i < r; ++i) {
    const uint32_t shift = layer->shifts[block->row + i];
    const uint32_t zero = (uint32_t)(layer->zero_point < 0 ? -layer->zero_point : layer->zero_point);
    if (shift < 33 || zero >= ((uint32_t)1 << 29) >> (shift - 32)) return false;
    row->bias[i] = ((const int32_t *)layer->bias)[block->row + i];
    row->multipliers[i] = layer->multipliers[block->row + i];
    row->addends[i] = (int32_t)(((uint32_t)1 << (shift - 33)) + ((uint32_t)layer->zero_point << (shift - 32)));
    row->shifts[i] = (int32_t)(shift - 32);
  }
  row->values = block->groups.values;
  row->columns = (const uint16_t *)(const void *)block->groups.columns;
  row->n = block->n;
  row->x_bytes = 2 * block->windows->x_column_step;
  row->y_bytes = block->windows->y_pixel_step * (layer->y_is_int8 ? 1u : 2u);
  row->min = (uint16_t)layer->min * 0x10001u;
  row->max = (uint16_t)layer->max * 0x10001u;
  row->y_is_int8 = layer->y_is_int8;
  return true;
}

/* A row of pixels; a tile that would go past its end begins earlier. */
SCALPEL_INLINE void row_by_tiles(byte_row_of_tiles *row, uint32_t width, uint32_t per_tile, const int16_t *x, void *y,
                                 tiles add_tiles) {
  const uint32_t last = width - per_tile;
  row->x = x;
  row->y = y;
  row->tiles = width / per_tile;
  add_tiles(row);
  if (width % per_tile != 0) {
    row->x = x + last * (row->x_bytes / 2);
    row->y = (uint8_t *)y + last * row->y_bytes;
    row->tiles = 1;
    add_tiles(row);
  }
}

SCALPEL_INLINE void conv(const scalpel_w8_layer *layer, const scalpel_windows *windows, const int16_t *x, void *y,
                         uint32_t r, bool acc64, byte_sum add_groups, tiles add_tiles) {
  const size_t y_bytes = layer->y_is_int8 ? 1 : 2;
  const uint16_t *counts = layer->counts;
  row_block block = {layer, windows, w8_rounding_of(layer), {layer->values, layer->columns}, 0, 0, r};
  for (; block.row < layer->rows; block.row += r) {
    byte_row_of_tiles row = {0};
    block.n = *counts++;
    if (layer->rows - block.row < r) block.rows = layer->rows - block.row;
    const bool by_tiles = add_tiles != NULL && takes_tiles(&block, r, &row);
    for (size_t h = 0; h < windows->height; ++h) {
      const int16_t *from = x + h * windows->x_row_step;
      const size_t to = h * windows->y_row_step + block.row;
      if (by_tiles) {
        row_by_tiles(&row, windows->width, 4 / r, from, (uint8_t *)y + to * y_bytes, add_tiles);
      } else {
        pixels(&block, from, y, to, r, acc64, add_groups);
      }
    }
    block.groups.values += 4 * r * block.n;
    block.groups.columns += 2 * block.n;
  }
}

#define DEFINE_CONV(SHAPE, ROWS, TILES)                                                               \
  void scalpel_conv_w8_##SHAPE##_acc32(const scalpel_w8_layer *layer, const scalpel_windows *windows, \
                                       const int16_t *x, void *y) {                                   \
    conv(layer, windows, x, y, ROWS, false, scalpel_sum_##SHAPE##_u16, TILES);                        \
  }                                                                                                   \
  void scalpel_conv_w8_##SHAPE##_acc64(const scalpel_w8_layer *layer, const scalpel_windows *windows, \
                                       const int16_t *x, void *y) {                                   \
    conv(layer, windows, x, y, ROWS, true, scalpel_sum_##SHAPE##_u16, NULL);                          \
  }
DEFINE_CONV(1x4, 1, scalpel_tiles_1x4)
DEFINE_CONV(2x4, 2, scalpel_tiles_2x4)
DEFINE_CONV(4x4, 4, NULL)
