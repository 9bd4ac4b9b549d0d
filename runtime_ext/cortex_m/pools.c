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

#define DEFINE_MAX_POOL(NAME, TYPE)                                                                                   \
  void scalpel_max_pool_##NAME(const scalpel_pool *pool, const TYPE *x, TYPE *y) {                                    \
    const uint32_t channels = pool->channels;                                                                         \
    for (uint32_t oh = 0; oh < pool->y_height; ++oh) {                                                                \
      const side rows = visible(oh, pool->stride_h, pool->top, pool->kernel_h, pool->dilation_h, pool->height);       \
      for (uint32_t ow = 0; ow < pool->y_width; ++ow) {                                                               \
        const side columns = visible(ow, pool->stride_w, pool->left, pool->kernel_w, pool->dilation_w, pool->width);  \
        const TYPE *window = x + ((size_t)rows.first * pool->width + columns.first) * channels;                       \
        memcpy(y, window, channels * sizeof *y);                                                                      \
        for (uint32_t h = 0; h < rows.count; ++h) {                                                                   \
          const TYPE *pixel = window + (size_t)h * pool->dilation_h * pool->width * channels;                         \
          for (uint32_t w = 0; w < columns.count; ++w) {                                                              \
            for (uint32_t c = 0; c < channels; ++c) y[c] = pixel[c] > y[c] ? pixel[c] : y[c];                         \
            pixel += (size_t)pool->dilation_w * channels;                                                             \
          }                                                                                                           \
        }                                                                                                             \
        y += channels;                                                                                                \
      }                                                                                                               \
    }                                                                                                                 \
  }
DEFINE_MAX_POOL(16, int16_t)
DEFINE_MAX_POOL(8, int8_t)

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
