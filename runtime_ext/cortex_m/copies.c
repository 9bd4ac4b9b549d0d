/* Copies into another shape or order. */
#include "arithmetic.h"

/* The type of a tensor, a constant wherever this is inlined. */
SCALPEL_INLINE int16_t load(const void *x, size_t at, bool is_int8) {
  return is_int8 ? ((const int8_t *)x)[at] : ((const int16_t *)x)[at];
}

SCALPEL_INLINE void store(void *y, size_t at, int16_t value, bool is_int8) {
  if (is_int8) {
    ((int8_t *)y)[at] = (int8_t)value;
  } else {
    ((int16_t *)y)[at] = value;
  }
}

SCALPEL_INLINE size_t fill(void *y, size_t at, size_t n, int16_t value, bool is_int8) {
  for (; n != 0; --n) store(y, at++, value, is_int8);
  return at;
}

SCALPEL_INLINE void pad(const scalpel_padding *padding, const void *x, void *y, bool x_is_int8, bool y_is_int8) {
  const size_t extra = (size_t)padding->y_channels - padding->channels;
  const size_t left = (size_t)padding->left * padding->y_channels;
  const size_t right = (size_t)padding->right * padding->y_channels;
  const size_t row = left + (size_t)padding->width * padding->y_channels + right;
  const size_t run = extra == 0 ? (size_t)padding->width * padding->channels : padding->channels;
  const uint32_t runs = extra == 0 ? 1 : padding->width;
  size_t from = 0;
  size_t to = fill(y, 0, padding->top * row + left, padding->value, y_is_int8);
  for (uint32_t h = 0; h < padding->height; ++h) {
    for (uint32_t n = 0; n < runs; ++n) {
      if (x_is_int8 == y_is_int8) {
        const size_t size = y_is_int8 ? 1 : 2;
        memcpy((uint8_t *)y + to * size, (const uint8_t *)x + from * size, run * size);
      } else {
        for (size_t i = 0; i < run; ++i) store(y, to + i, load(x, from + i, x_is_int8), y_is_int8);
      }
      from += run;
      to = fill(y, to + run, extra, padding->value, y_is_int8);
    }
    to = fill(y, to, h + 1 < padding->height ? right + left : right, padding->value, y_is_int8);
  }
  fill(y, to, padding->bottom * row, padding->value, y_is_int8);
}

void scalpel_pad_16(const scalpel_padding *padding, const int16_t *x, int16_t *y) { pad(padding, x, y, false, false); }

void scalpel_pad_8(const scalpel_padding *padding, const int8_t *x, int8_t *y) { pad(padding, x, y, true, true); }

void scalpel_pad_8_to_16(const scalpel_padding *padding, const int8_t *x, int16_t *y) {
  pad(padding, x, y, true, false);
}

void scalpel_transpose_16(uint32_t pixels, uint32_t channels, const int16_t *x, int16_t *y) {
  for (uint32_t c = 0; c < channels; ++c) {
    for (size_t p = 0; p < pixels; ++p) *y++ = x[p * channels + c];
  }
}

void scalpel_transpose_8(uint32_t pixels, uint32_t channels, const int8_t *x, int8_t *y) {
  for (uint32_t c = 0; c < channels; ++c) {
    for (size_t p = 0; p < pixels; ++p) *y++ = x[p * channels + c];
  }
}
