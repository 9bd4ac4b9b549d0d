#include "kernel_cases.h"

#include <stdbool.h>
#include <string.h>

#include "../scalpel_kernels.h"

/* ---- From numbers and arrays to arguments. Array 0 is always x. ---- */

/* rows, inputs, shift, min, max; x, values, bias[, columns, counts] */
static scalpel_q15_layer q15_layer(const kernel_case *from, bool sparse) {
  const int32_t *n = from->numbers;
  scalpel_q15_layer layer;
  layer.rows = (uint16_t)n[0];
  layer.inputs = (uint16_t)n[1];
  layer.shift = (uint8_t)n[2];
  layer.min = (int16_t)n[3];
  layer.max = (int16_t)n[4];
  layer.values = from->arrays[1];
  layer.bias = from->arrays[2];
  layer.columns = sparse ? from->arrays[3] : NULL;
  layer.counts = sparse ? from->arrays[4] : NULL;
  return layer;
}

/* rows, inputs, zero_point, min, max, y_is_int8; x, values, bias, multipliers, shifts[, columns, counts] */
static scalpel_w8_layer w8_layer(const kernel_case *from, bool sparse) {
  const int32_t *n = from->numbers;
  scalpel_w8_layer layer;
  layer.rows = (uint16_t)n[0];
  layer.inputs = (uint16_t)n[1];
  layer.zero_point = (int16_t)n[2];
  layer.min = (int16_t)n[3];
  layer.max = (int16_t)n[4];
  layer.y_is_int8 = (uint8_t)n[5];
  layer.values = from->arrays[1];
  layer.bias = from->arrays[2];
  layer.multipliers = from->arrays[3];
  layer.shifts = from->arrays[4];
  layer.columns = sparse ? from->arrays[5] : NULL;
  layer.counts = sparse ? from->arrays[6] : NULL;
  return layer;
}

static scalpel_windows windows_of(const int32_t *n) {
  const scalpel_windows windows = {(uint16_t)n[0], (uint16_t)n[1], (uint32_t)n[2],
                                   (uint32_t)n[3], (uint32_t)n[4], (uint32_t)n[5]};
  return windows;
}

/* count, length, groups, group_channels */
static scalpel_runs runs_of(const int32_t *n, const void *offsets) {
  const scalpel_runs runs = {offsets, (uint16_t)n[0], (uint16_t)n[1], (uint16_t)n[2], (uint16_t)n[3]};
  return runs;
}

static scalpel_padding padding_of(const int32_t *n) {
  const scalpel_padding padding = {(uint16_t)n[0], (uint16_t)n[1], (uint16_t)n[2], (uint16_t)n[3], (uint16_t)n[4],
                                   (uint16_t)n[5], (uint16_t)n[6], (uint16_t)n[7], (int16_t)n[8]};
  return padding;
}

static scalpel_rescaling rescaling_of(const int32_t *n) {
  const scalpel_rescaling rescaling = {(uint32_t)n[0], (uint32_t)n[1], (uint32_t)n[2], (uint32_t)n[3], n[4],
                                       (int16_t)n[5],  (int16_t)n[6],  (int16_t)n[7],  (int16_t)n[8],  (uint8_t)n[9]};
  return rescaling;
}

static scalpel_addition addition_of(const int32_t *n) {
  const scalpel_addition addition = {(uint32_t)n[0], {n[1], n[2]},  {(int16_t)n[3], (int16_t)n[4]},
                                     (int16_t)n[5],  (int16_t)n[6], (int16_t)n[7], (uint8_t)n[8]};
  return addition;
}

static scalpel_pool pool_of(const int32_t *n) {
  const scalpel_pool pool = {(uint16_t)n[0], (uint16_t)n[1],  (uint16_t)n[2],  (uint16_t)n[3], (uint16_t)n[4],
                             (uint16_t)n[5], (uint16_t)n[6],  (uint16_t)n[7],  (uint16_t)n[8], (uint16_t)n[9],
                             (uint16_t)n[10], (uint16_t)n[11], (uint16_t)n[12]};
  return pool;
}

/* pixels, channels, before, after, square_shift, fraction_bits, shift, min, max; x, table */
static scalpel_lrn lrn_of(const kernel_case *from) {
  const int32_t *n = from->numbers;
  const scalpel_lrn lrn = {(uint32_t)n[0],
                           (uint16_t)n[1],
                           (uint16_t)n[2],
                           (uint16_t)n[3],
                           from->arrays[1],
                           (uint16_t)(from->array_bytes[1] / sizeof(uint16_t)),
                           (uint8_t)n[4],
                           (uint8_t)n[5],
                           (uint8_t)n[6],
                           (int16_t)n[7],
                           (int16_t)n[8]};
  return lrn;
}

/* length, index_shift, one, zero_point, max; x, table */
static scalpel_softmax softmax_of(const kernel_case *from) {
  const int32_t *n = from->numbers;
  const scalpel_softmax softmax = {(uint32_t)n[0],
                                   from->arrays[1],
                                   (uint16_t)(from->array_bytes[1] / sizeof(uint16_t)),
                                   (uint8_t)n[1],
                                   (uint32_t)n[2],
                                   (int16_t)n[3],
                                   (int16_t)n[4]};
  return softmax;
}

/* ---- One function of the same type for each kernel. ---- */

#define Q15_FC(CALL)                                     \
  const scalpel_q15_layer layer = q15_layer(from, true); \
  CALL(&layer, from->arrays[0], y);
#define Q15_DENSE_FC(CALL)                                \
  const scalpel_q15_layer layer = q15_layer(from, false); \
  CALL(&layer, from->arrays[0], y);
#define Q15_CONV(CALL)                                              \
  const scalpel_q15_layer layer = q15_layer(from, true);            \
  const scalpel_windows windows = windows_of(from->numbers + 5);    \
  CALL(&layer, &windows, from->arrays[0], y);
#define Q15_DENSE_CONV(CALL)                                                 \
  const scalpel_q15_layer layer = q15_layer(from, false);                    \
  const scalpel_windows windows = windows_of(from->numbers + 5);             \
  const scalpel_runs runs = runs_of(from->numbers + 11, from->arrays[3]);    \
  CALL(&layer, &windows, &runs, from->arrays[0], y);
#define Q15_DEPTHWISE(CALL)                                       \
  const scalpel_q15_layer layer = q15_layer(from, false);         \
  const scalpel_windows windows = windows_of(from->numbers + 5);  \
  CALL(&layer, &windows, from->arrays[3], (uint16_t)(from->array_bytes[3] / sizeof(uint32_t)), from->arrays[0], y);
#define W8_FC(CALL)                                    \
  const scalpel_w8_layer layer = w8_layer(from, true); \
  CALL(&layer, from->arrays[0], y);
#define W8_DENSE_FC(CALL)                               \
  const scalpel_w8_layer layer = w8_layer(from, false); \
  CALL(&layer, from->arrays[0], y);
#define W8_CONV(CALL)                                             \
  const scalpel_w8_layer layer = w8_layer(from, true);            \
  const scalpel_windows windows = windows_of(from->numbers + 6);  \
  CALL(&layer, &windows, from->arrays[0], y);
#define W8_DENSE_CONV(CALL)                                                  \
  const scalpel_w8_layer layer = w8_layer(from, false);                      \
  const scalpel_windows windows = windows_of(from->numbers + 6);             \
  const scalpel_runs runs = runs_of(from->numbers + 12, from->arrays[5]);    \
  CALL(&layer, &windows, &runs, from->arrays[0], y);
#define W8_DEPTHWISE(CALL)                                        \
  const scalpel_w8_layer layer = w8_layer(from, false);           \
  const scalpel_windows windows = windows_of(from->numbers + 6);  \
  CALL(&layer, &windows, from->arrays[5], (uint16_t)(from->array_bytes[5] / sizeof(uint32_t)), from->arrays[0], y);
#define PAD(CALL)                                              \
  const scalpel_padding padding = padding_of(from->numbers);   \
  CALL(&padding, from->arrays[0], y);
#define TRANSPOSE(CALL) CALL((uint32_t)from->numbers[0], (uint32_t)from->numbers[1], from->arrays[0], y);
#define RESCALE(CALL)                                                \
  const scalpel_rescaling rescaling = rescaling_of(from->numbers);   \
  CALL(&rescaling, from->arrays[0], y);
#define ADD(CALL)                                                 \
  const scalpel_addition addition = addition_of(from->numbers);   \
  CALL(&addition, from->arrays[0], from->arrays[1], y);
#define LOOKUP(CALL) CALL((uint32_t)from->numbers[0], from->arrays[1], from->arrays[0], y);
#define MAX_POOL(CALL)                               \
  const scalpel_pool pool = pool_of(from->numbers);  \
  CALL(&pool, from->arrays[0], y);
#define AVERAGE_POOL_16(CALL)                        \
  const scalpel_pool pool = pool_of(from->numbers);  \
  CALL(&pool, (uint8_t)from->numbers[13], (int16_t)from->numbers[14], from->arrays[0], y);
#define AVERAGE_POOL_8(CALL)                         \
  const scalpel_pool pool = pool_of(from->numbers);  \
  CALL(&pool, (uint8_t)from->numbers[13], (int8_t)from->numbers[14], from->arrays[0], y);
#define LRN(CALL)                         \
  const scalpel_lrn lrn = lrn_of(from);   \
  CALL(&lrn, from->arrays[0], y);
#define SOFTMAX(CALL)                                 \
  const scalpel_softmax softmax = softmax_of(from);   \
  CALL(&softmax, from->arrays[0], y);
#define ARGMAX(CALL)                                                                  \
  const uint32_t index = CALL((uint32_t)from->numbers[0], from->arrays[0]);           \
  memcpy(y, &index, sizeof index);

/* Each with how it is called, and how many numbers and arrays that takes. */
#define KERNELS(X)                              \
  X(fc_q15_1x2_u8_acc32, Q15_FC, 5, 5)          \
  X(fc_q15_2x2_u8_acc32, Q15_FC, 5, 5)          \
  X(fc_q15_4x2_u8_acc32, Q15_FC, 5, 5)          \
  X(fc_q15_1x2_u16_acc32, Q15_FC, 5, 5)         \
  X(fc_q15_2x2_u16_acc32, Q15_FC, 5, 5)         \
  X(fc_q15_4x2_u16_acc32, Q15_FC, 5, 5)         \
  X(fc_q15_1x2_u8_acc64, Q15_FC, 5, 5)          \
  X(fc_q15_2x2_u8_acc64, Q15_FC, 5, 5)          \
  X(fc_q15_4x2_u8_acc64, Q15_FC, 5, 5)          \
  X(fc_q15_1x2_u16_acc64, Q15_FC, 5, 5)         \
  X(fc_q15_2x2_u16_acc64, Q15_FC, 5, 5)         \
  X(fc_q15_4x2_u16_acc64, Q15_FC, 5, 5)         \
  X(dense_fc_q15_acc32, Q15_DENSE_FC, 5, 3)     \
  X(dense_fc_q15_acc64, Q15_DENSE_FC, 5, 3)     \
  X(conv_q15_1x2_acc32, Q15_CONV, 11, 5)        \
  X(conv_q15_2x2_acc32, Q15_CONV, 11, 5)        \
  X(conv_q15_4x2_acc32, Q15_CONV, 11, 5)        \
  X(conv_q15_1x2_acc64, Q15_CONV, 11, 5)        \
  X(conv_q15_2x2_acc64, Q15_CONV, 11, 5)        \
  X(conv_q15_4x2_acc64, Q15_CONV, 11, 5)        \
  X(dense_conv_q15_acc32, Q15_DENSE_CONV, 15, 4) \
  X(dense_conv_q15_acc64, Q15_DENSE_CONV, 15, 4) \
  X(depthwise_q15_acc32, Q15_DEPTHWISE, 11, 4)  \
  X(depthwise_q15_acc64, Q15_DEPTHWISE, 11, 4)  \
  X(fc_w8_1x4_u8_acc32, W8_FC, 6, 7)            \
  X(fc_w8_1x4_u8_acc64, W8_FC, 6, 7)            \
  X(fc_w8_2x4_u8_acc32, W8_FC, 6, 7)            \
  X(fc_w8_2x4_u8_acc64, W8_FC, 6, 7)            \
  X(fc_w8_4x4_u8_acc32, W8_FC, 6, 7)            \
  X(fc_w8_4x4_u8_acc64, W8_FC, 6, 7)            \
  X(fc_w8_1x4_u16_acc32, W8_FC, 6, 7)           \
  X(fc_w8_1x4_u16_acc64, W8_FC, 6, 7)           \
  X(fc_w8_2x4_u16_acc32, W8_FC, 6, 7)           \
  X(fc_w8_2x4_u16_acc64, W8_FC, 6, 7)           \
  X(fc_w8_4x4_u16_acc32, W8_FC, 6, 7)           \
  X(fc_w8_4x4_u16_acc64, W8_FC, 6, 7)           \
  X(dense_fc_w8_acc32, W8_DENSE_FC, 6, 5)       \
  X(dense_fc_w8_acc64, W8_DENSE_FC, 6, 5)       \
  X(conv_w8_1x4_acc32, W8_CONV, 12, 7)          \
  X(conv_w8_1x4_acc64, W8_CONV, 12, 7)          \
  X(conv_w8_2x4_acc32, W8_CONV, 12, 7)          \
  X(conv_w8_2x4_acc64, W8_CONV, 12, 7)          \
  X(conv_w8_4x4_acc32, W8_CONV, 12, 7)          \
  X(conv_w8_4x4_acc64, W8_CONV, 12, 7)          \
  X(dense_conv_w8_acc32, W8_DENSE_CONV, 16, 6)  \
  X(dense_conv_w8_acc64, W8_DENSE_CONV, 16, 6)  \
  X(depthwise_w8_acc32, W8_DEPTHWISE, 12, 6)    \
  X(depthwise_w8_acc64, W8_DEPTHWISE, 12, 6)    \
  X(pad_16, PAD, 9, 1)                          \
  X(pad_8, PAD, 9, 1)                           \
  X(pad_8_to_16, PAD, 9, 1)                     \
  X(transpose_16, TRANSPOSE, 2, 1)              \
  X(transpose_8, TRANSPOSE, 2, 1)               \
  X(rescale_16, RESCALE, 10, 1)                 \
  X(rescale_8, RESCALE, 10, 1)                  \
  X(rescale_16_to_8, RESCALE, 10, 1)            \
  X(rescale_8_to_16, RESCALE, 10, 1)            \
  X(add_16, ADD, 9, 2)                          \
  X(add_8, ADD, 9, 2)                           \
  X(lookup_16, LOOKUP, 1, 2)                    \
  X(lookup_8, LOOKUP, 1, 2)                     \
  X(max_pool_16, MAX_POOL, 13, 1)               \
  X(max_pool_8, MAX_POOL, 13, 1)                \
  X(average_pool_16, AVERAGE_POOL_16, 15, 1)    \
  X(average_pool_8, AVERAGE_POOL_8, 15, 1)      \
  X(lrn_16, LRN, 9, 2)                          \
  X(softmax_16, SOFTMAX, 5, 2)                  \
  X(softmax_8, SOFTMAX, 5, 2)                   \
  X(argmax_16, ARGMAX, 1, 1)                    \
  X(argmax_8, ARGMAX, 1, 1)

#define DEFINE(NAME, TAKES, NUMBERS, ARRAYS) \
  static void NAME(const kernel_case *from, void *y) { TAKES(scalpel_##NAME) }
KERNELS(DEFINE)

typedef struct {
  const char *name;
  uint32_t n_numbers;
  uint32_t n_arrays;
  kernel_call *call;
} kernel;

#define ROW(NAME, TAKES, NUMBERS, ARRAYS) {#NAME, NUMBERS, ARRAYS, NAME},
static const kernel kernels[] = {KERNELS(ROW)};

kernel_call *find_kernel(const kernel_case *which) {
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; ++i) {
    if (strcmp(kernels[i].name, which->name) == 0) {
      const bool fits = kernels[i].n_numbers == which->n_numbers && kernels[i].n_arrays == which->n_arrays;
      return fits ? kernels[i].call : NULL;
    }
  }
  return NULL;
}

/* ---- The file. ---- */

static const void *take(const void *file, size_t size, size_t *at, size_t bytes) {
  const size_t start = *at;
  if (start > size || bytes > size - start) return NULL;
  *at = (start + bytes + 7) / 8 * 8;
  return (const uint8_t *)file + start;
}

int next_kernel_case(const void *file, size_t size, size_t *at, kernel_case *result) {
  result->name = take(file, size, at, 40);
  const uint32_t *header = take(file, size, at, 16);
  if (result->name == NULL || header == NULL || result->name[39] != 0 || header[1] > KERNEL_CASE_ARRAYS) return 0;
  result->n_numbers = header[0];
  result->n_arrays = header[1];
  result->output_bytes = header[2];
  result->numbers = take(file, size, at, 4 * (size_t)header[0]);
  const uint32_t *bytes = take(file, size, at, 4 * (size_t)header[1]);
  if (result->numbers == NULL || bytes == NULL) return 0;
  for (uint32_t i = 0; i < KERNEL_CASE_ARRAYS; ++i) {
    result->array_bytes[i] = i < header[1] ? bytes[i] : 0;
    result->arrays[i] = i < header[1] ? take(file, size, at, bytes[i]) : NULL;
    if (i < header[1] && result->arrays[i] == NULL) return 0;
  }
  return 1;
}
