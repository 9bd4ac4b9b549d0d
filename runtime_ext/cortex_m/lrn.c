/* Local response normalization across channels. */
#include "arithmetic.h"

SCALPEL_INLINE uint32_t square(int32_t x) { return (uint32_t)(x * x); }

/* Three squares and fewer fit a sum of 32 bits, which wraps around only while it moves on by a channel. */
SCALPEL_INLINE void lrn_16(const scalpel_lrn *lrn, const int16_t *x, int16_t *y, bool wide) {
  const scalpel_lrn own = *lrn; /* Stores to y might change the structure. */
  const uint32_t most = ((uint32_t)(own.entries - 1u) << own.fraction_bits) - 1;
  const uint32_t mask = ((uint32_t)1 << own.fraction_bits) - 1;
  const int32_t half = (int32_t)((uint32_t)1 << (own.shift - 1));
  for (uint32_t p = 0; p < own.pixels; ++p) {
    uint64_t sum = 0;
    for (uint32_t c = 0; c < own.channels && c < own.after; ++c) sum += square(x[c]);
    for (uint32_t c = 0; c < own.channels; ++c) {
      if (c + own.after < own.channels) sum += square(x[c + own.after]);
      if (c > own.before) sum -= square(x[c - own.before - 1u]);
      if (!wide) sum = (uint32_t)sum;
      const uint64_t scaled = sum >> own.square_shift;
      const uint32_t position = scaled < most ? (uint32_t)scaled : most;
      const uint16_t *at = own.table + (position >> own.fraction_bits);
      const uint32_t fall = (uint32_t)(at[0] - at[1]);
      const uint32_t factor = at[0] - ((fall * (position & mask)) >> own.fraction_bits);
      y[c] = clamp_32((x[c] * (int32_t)factor + half) >> own.shift, own.min, own.max);
    }
    x += own.channels;
    y += own.channels;
  }
}

void scalpel_lrn_16(const scalpel_lrn *lrn, const int16_t *x, int16_t *y) {
  if (lrn->before + lrn->after < 3) {
    lrn_16(lrn, x, y, false);
  } else {
    lrn_16(lrn, x, y, true);
  }
}
