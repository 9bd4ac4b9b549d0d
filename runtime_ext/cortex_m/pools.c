/* Largest and average values of windows. */
#include "arithmetic.h"

/* The part of a window's side that lies in the image: its first position, and how many from there on. */
typedef struct {
  uint32_t first;
  uint32_t count;
} side;

static side visible(uint32_t at, uint32_t stride, uint32_t before, uint32_t kernel, uint32_t dilation, uint32_t size) {
  const uint32_t start = at * stride;
  const uint32_t skipped = start < before ? (before - start + dilation - 1) / dilation : 0;
  const uint32_t first = start + skipped * dilation - before;
  const uint32_t fitting = (size - first + dilation - 1) / dilation;
  const uint32_t wanted = kernel - skipped;
  const side result = {first, fitting < wanted ? fitting : wanted};
  return result;
}

/* y = the larger of y and x, value by value; of a pixel's bytes. */
SCALPEL_INLINE void keep_larger(uint8_t *y, const uint8_t *x, size_t bytes, bool is_int8) {
  size_t at = 0;
  UNROLLED
  for (; at + 4 <= bytes; at += 4) {
    const uint32_t old = load_word(y + at);
    const uint32_t other = load_word(x + at);
    store_word(y + at, is_int8 ? larger_bytes(old, other) : larger_halves(old, other));
  }
  for (; is_int8 && at < bytes; ++at) {
    if ((int8_t)x[at] > (int8_t)y[at]) y[at] = x[at];
  }
  if (at < bytes && low_half(load_half(x + at)) > low_half(load_half(y + at))) memcpy(y + at, x + at, 2);
}

SCALPEL_INLINE void max_pool(const scalpel_pool *pool, const void *x, void *y, bool is_int8) {
  const size_t pixel_bytes = pool->channels * (is_int8 ? sizeof(int8_t) : sizeof(int16_t));
  const size_t column_step = pool->dilation_w * pixel_bytes;
  const size_t row_step = (size_t)pool->dilation_h * pool->width * pixel_bytes;
  uint8_t *to = y;
  for (uint32_t oh = 0; oh < pool->y_height; ++oh) {
    const side rows = visible(oh, pool->stride_h, pool->top, pool->kernel_h, pool->dilation_h, pool->height);
    for (uint32_t ow = 0; ow < pool->y_width; ++ow) {
      const side columns = visible(ow, pool->stride_w, pool->left, pool->kernel_w, pool->dilation_w, pool->width);
      const uint8_t *row = (const uint8_t *)x + ((size_t)rows.first * pool->width + columns.first) * pixel_bytes;
      memcpy(to, row, pixel_bytes);
      for (uint32_t h = 0; h < rows.count; ++h) {
        const uint8_t *pixel = row;
        for (uint32_t w = 0; w < columns.count; ++w) {
          if (pixel != row || h != 0) keep_larger(to, pixel, pixel_bytes, is_int8);
          pixel += column_step;
        }
        row += row_step;
      }
      to += pixel_bytes;
    }
  }
}

void scalpel_max_pool_16(const scalpel_pool *pool, const int16_t *x, int16_t *y) { max_pool(pool, x, y, false); }

void scalpel_max_pool_8(const scalpel_pool *pool, const int8_t *x, int8_t *y) { max_pool(pool, x, y, true); }

/* floor((2 * sum + n) / (2 * n)) for |sum| <= 2^15 * n; the dividend of C's division is kept positive. */
static int32_t average(int32_t sum, uint32_t n) {
  return (int32_t)(((uint32_t)sum + (n >> 1) + (n << 15)) / n) - 32768;
}

#define DEFINE_AVERAGE_POOL(NAME, TYPE)                                                                               \
  void scalpel_average_pool_##NAME(const scalpel_pool *pool, uint8_t include_padding, TYPE padding_value,             \
                                   const TYPE *x, TYPE *y) {                                                          \
    const uint32_t channels = pool->channels;                                                                         \
    const uint32_t all = (uint32_t)pool->kernel_h * pool->kernel_w;                                                   \
    for (uint32_t oh = 0; oh < pool->y_height; ++oh) {                                                                \
      const side rows = visible(oh, pool->stride_h, pool->top, pool->kernel_h, pool->dilation_h, pool->height);       \
      for (uint32_t ow = 0; ow < pool->y_width; ++ow) {                                                               \
        const side columns = visible(ow, pool->stride_w, pool->left, pool->kernel_w, pool->dilation_w, pool->width);  \
        const TYPE *window = x + ((size_t)rows.first * pool->width + columns.first) * channels;                       \
        const uint32_t seen = rows.count * columns.count;                                                             \
        for (uint32_t c = 0; c < channels; ++c) {                                                                     \
          int32_t sum = include_padding ? (int32_t)(all - seen) * padding_value : 0;                                  \
          for (uint32_t h = 0; h < rows.count; ++h) {                                                                 \
            const TYPE *pixel = window + (size_t)h * pool->dilation_h * pool->width * channels + c;                   \
            for (uint32_t w = 0; w < columns.count; ++w) {                                                            \
              sum += *pixel;                                                                                          \
              pixel += (size_t)pool->dilation_w * channels;                                                           \
            }                                                                                                         \
          }                                                                                                           \
          *y++ = (TYPE)average(sum, include_padding ? all : seen);                                                    \
        }                                                                                                             \
      }                                                                                                               \
    }                                                                                                                 \
  }
DEFINE_AVERAGE_POOL(16, int16_t)
DEFINE_AVERAGE_POOL(8, int8_t)
