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

SCALPEL_INLINE uint32_t larger(uint32_t a, uint32_t b, bool is_int8) {
  return is_int8 ? larger_bytes(a, b) : larger_halves(a, b);
}

/* The largest of 1 to 3 pixels of a row, and of y unless they are a window's first; value by value. */
SCALPEL_INLINE uint32_t largest_of(uint32_t taps, const uint8_t *x, size_t step, uint32_t before, bool first,
                                   bool is_int8) {
  uint32_t largest = load_word(x);
  if (taps > 1) largest = larger(largest, load_word(x + step), is_int8);
  if (taps > 2) largest = larger(largest, load_word(x + 2 * step), is_int8);
  return first ? largest : larger(largest, before, is_int8);
}

SCALPEL_INLINE void keep_largest(uint8_t *y, const uint8_t *x, size_t step, size_t bytes, uint32_t taps, bool first,
                                 bool is_int8) {
  size_t at = 0;
  UNROLLED
  for (; at + 4 <= bytes; at += 4) {
    store_word(y + at, largest_of(taps, x + at, step, first ? 0 : load_word(y + at), first, is_int8));
  }
  if (at < bytes) { /* The rest of a pixel alone: what lies behind it may not be there. */
    uint8_t rest[4][4] = {{0}};
    for (uint32_t tap = 0; tap < taps; ++tap) memcpy(rest[tap], x + at + tap * step, bytes - at);
    memcpy(rest[3], y + at, first ? 0 : bytes - at);
    const uint32_t largest = largest_of(taps, rest[0], 4, load_word(rest[3]), first, is_int8);
    memcpy(y + at, &largest, bytes - at);
  }
}

SCALPEL_INLINE void max_pool(const scalpel_pool *pool, const void *x, void *y, bool is_int8) {
  const size_t pixel_bytes = pool->channels * (is_int8 ? sizeof(int8_t) : sizeof(int16_t));
  const size_t step = pool->dilation_w * pixel_bytes;
  const size_t row_step = (size_t)pool->dilation_h * pool->width * pixel_bytes;
  uint8_t *to = y;
  for (uint32_t oh = 0; oh < pool->y_height; ++oh) {
    const side rows = visible(oh, pool->stride_h, pool->top, pool->kernel_h, pool->dilation_h, pool->height);
    for (uint32_t ow = 0; ow < pool->y_width; ++ow) {
      const side columns = visible(ow, pool->stride_w, pool->left, pool->kernel_w, pool->dilation_w, pool->width);
      const uint8_t *row = (const uint8_t *)x + ((size_t)rows.first * pool->width + columns.first) * pixel_bytes;
      bool first = true;
      for (uint32_t h = 0; h < rows.count; ++h) {
        const uint8_t *pixel = row;
        for (uint32_t left = columns.count; left != 0;) {
          const uint32_t taps = left < 3 ? left : 3;
          switch (2 * taps + first) {
            case 2: keep_largest(to, pixel, step, pixel_bytes, 1, false, is_int8); break;
            case 3: keep_largest(to, pixel, step, pixel_bytes, 1, true, is_int8); break;
            case 4: keep_largest(to, pixel, step, pixel_bytes, 2, false, is_int8); break;
            case 5: keep_largest(to, pixel, step, pixel_bytes, 2, true, is_int8); break;
            case 6: keep_largest(to, pixel, step, pixel_bytes, 3, false, is_int8); break;
            default: keep_largest(to, pixel, step, pixel_bytes, 3, true, is_int8);
          }
          first = false;
          pixel += taps * step;
          left -= taps;
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

/* The part of a window that lies in the image; steps in values. */
typedef struct {
  side rows;
  side columns;
  size_t row_step;
  size_t column_step;
} seen_window;

SCALPEL_INLINE int32_t sum_of(const seen_window *window, const void *x, size_t at, bool is_int8) {
  int32_t sum = 0;
  for (uint32_t h = 0; h < window->rows.count; ++h) {
    size_t pixel = at + h * window->row_step;
    for (uint32_t w = window->columns.count; w != 0; --w) {
      sum += is_int8 ? ((const int8_t *)x)[pixel] : ((const int16_t *)x)[pixel];
      pixel += window->column_step;
    }
  }
  return sum;
}

/* The same of two neighbouring channels. */
SCALPEL_INLINE void sums_of_two(int32_t *sums, const seen_window *window, const int16_t *x) {
  int32_t first = 0;
  int32_t second = 0;
  for (uint32_t h = window->rows.count; h != 0; --h) {
    const int16_t *pixel = x;
    UNROLLED
    for (uint32_t w = window->columns.count; w != 0; --w) {
      const uint32_t pair = load_word(pixel);
      first = add_products_32(1u, pair, first);
      second = add_products_32((uint32_t)1 << 16, pair, second);
      pixel += window->column_step;
    }
    x += window->row_step;
  }
  sums[0] = first;
  sums[1] = second;
}

SCALPEL_INLINE void average_pool(const scalpel_pool *pool, bool include_padding, int32_t padding_value, const void *x,
                                 void *y, bool is_int8) {
  const size_t channels = pool->channels;
  const uint32_t all = (uint32_t)pool->kernel_h * pool->kernel_w;
  seen_window window = {{0, 0}, {0, 0}, pool->dilation_h * pool->width * channels, pool->dilation_w * channels};
  size_t to = 0;
  for (uint32_t oh = 0; oh < pool->y_height; ++oh) {
    window.rows = visible(oh, pool->stride_h, pool->top, pool->kernel_h, pool->dilation_h, pool->height);
    for (uint32_t ow = 0; ow < pool->y_width; ++ow) {
      window.columns = visible(ow, pool->stride_w, pool->left, pool->kernel_w, pool->dilation_w, pool->width);
      const size_t from = ((size_t)window.rows.first * pool->width + window.columns.first) * channels;
      const uint32_t seen = window.rows.count * window.columns.count;
      const uint32_t n = include_padding ? all : seen;
      const int32_t padding = include_padding ? (int32_t)(all - seen) * padding_value : 0;
      size_t c = 0;
      for (; !is_int8 && c + 2 <= channels; c += 2) {
        int32_t sums[2];
        sums_of_two(sums, &window, (const int16_t *)x + from + c);
        ((int16_t *)y)[to++] = (int16_t)average(padding + sums[0], n);
        ((int16_t *)y)[to++] = (int16_t)average(padding + sums[1], n);
      }
      for (; c < channels; ++c) {
        const int32_t mean = average(padding + sum_of(&window, x, from + c, is_int8), n);
        if (is_int8) {
          ((int8_t *)y)[to++] = (int8_t)mean;
        } else {
          ((int16_t *)y)[to++] = (int16_t)mean;
        }
      }
    }
  }
}

void scalpel_average_pool_16(const scalpel_pool *pool, uint8_t include_padding, int16_t padding_value,
                             const int16_t *x, int16_t *y) {
  average_pool(pool, include_padding != 0, padding_value, x, y, false);
}

void scalpel_average_pool_8(const scalpel_pool *pool, uint8_t include_padding, int8_t padding_value, const int8_t *x,
                            int8_t *y) {
  average_pool(pool, include_padding != 0, padding_value, x, y, true);
}
