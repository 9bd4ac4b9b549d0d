/* Local response normalization across channels. */
#include "arithmetic.h"

SCALPEL_INLINE uint64_t square(int32_t x) { return (uint32_t)(x * x); }

void scalpel_lrn_16(const scalpel_lrn *lrn, const int16_t *x, int16_t *y) {
  const uint32_t channels = lrn->channels;
  const uint64_t most = ((uint64_t)(lrn->entries - 1u) << lrn->fraction_bits) - 1;
  const uint32_t mask = ((uint32_t)1 << lrn->fraction_bits) - 1;
  for (uint32_t p = 0; p < lrn->pixels; ++p) {
    uint64_t sum = 0;
    for (uint32_t c = 0; c < channels && c < lrn->after; ++c) sum += square(x[c]);
    for (uint32_t c = 0; c < channels; ++c) {
      if (c + lrn->after < channels) sum += square(x[c + lrn->after]);
      if (c > lrn->before) sum -= square(x[c - lrn->before - 1]);
      const uint64_t scaled = sum >> lrn->square_shift;
      const uint32_t position = (uint32_t)(scaled < most ? scaled : most);
      const uint16_t *at = lrn->table + (position >> lrn->fraction_bits);
      const uint32_t fall = (uint32_t)(at[0] - at[1]);
      const uint32_t factor = at[0] - ((fall * (position & mask)) >> lrn->fraction_bits);
      y[c] = (int16_t)clamp_64(shift_half_up((int64_t)x[c] * factor, lrn->shift), lrn->min, lrn->max);
    }
    x += channels;
    y += channels;
  }
}
