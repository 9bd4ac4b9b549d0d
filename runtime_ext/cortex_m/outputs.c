/* What a classifier ends with: softmax and the index of the largest value. */
#include "arithmetic.h"

#define DEFINE_ARGMAX(NAME, TYPE)                                   \
  uint32_t scalpel_argmax_##NAME(uint32_t length, const TYPE *x) { \
    uint32_t best = 0;                                              \
    for (uint32_t i = 1; i < length; ++i) {                         \
      if (x[i] > x[best]) best = i;                                 \
    }                                                               \
    return best;                                                    \
  }
DEFINE_ARGMAX(16, int16_t)
DEFINE_ARGMAX(8, int8_t)

SCALPEL_INLINE uint32_t exponential(const scalpel_softmax *softmax, int32_t below) {
  const uint32_t at = (uint32_t)below >> softmax->index_shift;
  return softmax->table[at < softmax->entries ? at : softmax->entries - 1u];
}

SCALPEL_INLINE int16_t probability(const scalpel_softmax *softmax, uint32_t e, uint32_t sum) {
  const int32_t y = softmax->zero_point + (int32_t)((e * softmax->one + (sum >> 1)) / sum);
  return (int16_t)(y < softmax->max ? y : softmax->max);
}

#define DEFINE_SOFTMAX(NAME, TYPE)                                                                  \
  void scalpel_softmax_##NAME(const scalpel_softmax *softmax, const TYPE *x, TYPE *y) {             \
    const int32_t largest = x[scalpel_argmax_##NAME(softmax->length, x)];                           \
    uint32_t sum = 0;                                                                               \
    for (uint32_t i = 0; i < softmax->length; ++i) sum += exponential(softmax, largest - x[i]);     \
    for (uint32_t i = 0; i < softmax->length; ++i) {                                                \
      y[i] = (TYPE)probability(softmax, exponential(softmax, largest - x[i]), sum);                 \
    }                                                                                               \
  }
DEFINE_SOFTMAX(16, int16_t)
DEFINE_SOFTMAX(8, int8_t)
