/* Depthwise convolutions: each channel with its own window. */
#include "arithmetic.h"

SCALPEL_INLINE void q15(const scalpel_q15_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                        uint16_t n_taps, const int16_t *x, int16_t *y, bool acc64) {
  const q15_rounding rounding = q15_rounding_of(layer);
  for (uint32_t h = 0; h < windows->height; ++h) {
    const int16_t *from = x + (size_t)h * windows->x_row_step;
    int16_t *to = y + (size_t)h * windows->y_row_step;
    for (uint32_t w = 0; w < windows->width; ++w) {
      for (uint32_t row = 0; row < layer->rows; ++row) {
        int64_t acc = acc64 ? ((const int64_t *)layer->bias)[row] : ((const int32_t *)layer->bias)[row];
        const int16_t *weight = layer->values + row;
        for (uint32_t tap = 0; tap < n_taps; ++tap) {
          const int32_t product = (int32_t)from[taps[tap] + row] * *weight;
          acc = acc64 ? acc + product : (int32_t)((uint32_t)acc + (uint32_t)product);
          weight += layer->rows;
        }
        to[row] = acc64 ? q15_output_64(rounding, acc) : q15_output(rounding, (int32_t)acc);
      }
      from += windows->x_column_step;
      to += windows->y_pixel_step;
    }
  }
}

void scalpel_depthwise_q15_acc32(const scalpel_q15_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                                 uint16_t n_taps, const int16_t *x, int16_t *y) {
  q15(layer, windows, taps, n_taps, x, y, false);
}

void scalpel_depthwise_q15_acc64(const scalpel_q15_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                                 uint16_t n_taps, const int16_t *x, int16_t *y) {
  q15(layer, windows, taps, n_taps, x, y, true);
}

SCALPEL_INLINE void w8(const scalpel_w8_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                       uint16_t n_taps, const int16_t *x, void *y, bool acc64) {
  const w8_rounding rounding = w8_rounding_of(layer);
  for (uint32_t h = 0; h < windows->height; ++h) {
    const int16_t *from = x + (size_t)h * windows->x_row_step;
    size_t to = (size_t)h * windows->y_row_step;
    for (uint32_t w = 0; w < windows->width; ++w) {
      for (uint32_t row = 0; row < layer->rows; ++row) {
        const int8_t *weight = layer->values + row;
        if (acc64) {
          int64_t acc = ((const int64_t *)layer->bias)[row];
          for (uint32_t tap = 0; tap < n_taps; ++tap) {
            acc += (int32_t)from[taps[tap] + row] * *weight;
            weight += layer->rows;
          }
          w8_output_64(rounding, row, acc, y, to + row);
        } else {
          uint32_t acc = ((const uint32_t *)layer->bias)[row];
          for (uint32_t tap = 0; tap < n_taps; ++tap) {
            acc += (uint32_t)((int32_t)from[taps[tap] + row] * *weight);
            weight += layer->rows;
          }
          w8_output(rounding, row, (int32_t)acc, y, to + row);
        }
      }
      from += windows->x_column_step;
      to += windows->y_pixel_step;
    }
  }
}

void scalpel_depthwise_w8_acc32(const scalpel_w8_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                                uint16_t n_taps, const int16_t *x, void *y) {
  w8(layer, windows, taps, n_taps, x, y, false);
}

void scalpel_depthwise_w8_acc64(const scalpel_w8_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                                uint16_t n_taps, const int16_t *x, void *y) {
  w8(layer, windows, taps, n_taps, x, y, true);
}
