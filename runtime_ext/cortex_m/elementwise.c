/* Rescaling, clamps, sums and tables, value by value. */
#include "arithmetic.h"

SCALPEL_INLINE int16_t rescaled(const scalpel_rescaling *rescaling, int32_t x) {
  const int64_t product = (int64_t)(x - rescaling->x_zero_point) * rescaling->multiplier;
  return (int16_t)clamp_64(rescaling->y_zero_point + shift_half_up(product, rescaling->shift), rescaling->min,
                           rescaling->max);
}

#define DEFINE_RESCALE(NAME, X, Y)                                                      \
  void scalpel_rescale_##NAME(const scalpel_rescaling *rescaling, const X *x, Y *y) {   \
    for (uint32_t p = 0; p < rescaling->pixels; ++p) {                                  \
      for (uint32_t c = 0; c < rescaling->channels; ++c) y[c] = (Y)rescaled(rescaling, x[c]); \
      x += rescaling->x_pixel_step;                                                     \
      y += rescaling->y_pixel_step;                                                     \
    }                                                                                   \
  }
DEFINE_RESCALE(16, int16_t, int16_t)
DEFINE_RESCALE(8, int8_t, int8_t)
DEFINE_RESCALE(16_to_8, int16_t, int8_t)
DEFINE_RESCALE(8_to_16, int8_t, int16_t)

SCALPEL_INLINE int16_t added(const scalpel_addition *addition, int32_t x0, int32_t x1) {
  const int64_t sum = (int64_t)(x0 - addition->x_zero_point[0]) * addition->multiplier[0] +
                      (int64_t)(x1 - addition->x_zero_point[1]) * addition->multiplier[1];
  return (int16_t)clamp_64(addition->zero_point + shift_half_up(sum, addition->shift), addition->min, addition->max);
}

void scalpel_add_16(const scalpel_addition *addition, const int16_t *x0, const int16_t *x1, int16_t *y) {
  for (uint32_t i = 0; i < addition->length; ++i) y[i] = added(addition, x0[i], x1[i]);
}

void scalpel_add_8(const scalpel_addition *addition, const int8_t *x0, const int8_t *x1, int8_t *y) {
  for (uint32_t i = 0; i < addition->length; ++i) y[i] = (int8_t)added(addition, x0[i], x1[i]);
}

void scalpel_lookup_8(uint32_t length, const int8_t *table, const int8_t *x, int8_t *y) {
  for (uint32_t i = 0; i < length; ++i) y[i] = table[x[i] + 128];
}

void scalpel_lookup_16(uint32_t length, const int16_t *table, const int16_t *x, int16_t *y) {
  for (uint32_t i = 0; i < length; ++i) {
    const uint32_t position = (uint32_t)(x[i] + 32768);
    const int16_t *at = table + (position >> 7);
    y[i] = (int16_t)(at[0] + (((at[1] - at[0]) * (int32_t)(position & 127u) + 64) >> 7));
  }
}
