/* Integer kernels of sparse and dense layers for Cortex-M: C99, no allocation, no floating point, no global state.
 *
 * Each function has one meaning, stated in exact integer arithmetic, and gives the same bytes everywhere: with the
 * DSP extension (__ARM_FEATURE_SIMD32: Cortex-M4, M7, M33) by its dual multiplications, elsewhere by portable C.
 * Right shifts of negative numbers round down, as every compiler for these machines does.
 *
 * Tensors. One image, HWC: channels run fastest. Vectors are images of one pixel, 1-D data has a height of 1. int16
 * (q15 networks, and the inputs of int8 weights) or int8. Every pointer to int16 or int8 values, weights included,
 * is aligned to 4 bytes. "Step" means the distance between two things in elements of the tensor.
 *
 * Borders. No convolution knows padding: it slides over an input that has its border already. The border is written
 * by scalpel_pad_*, which copies an image into a larger buffer (and widens int8 to int16 on the way), or it
 * stands in the buffer that the layer before wrote into, through the steps of its output.
 *
 * Reading past the end. Sparse kernels read whole groups of columns: x is readable up to K, or up to the end of a run
 * of the last window, rounded up to a multiple of the width c of a group; the values there do not matter, their
 * weights are 0. No other function reads or writes outside of its tensors.
 *
 * Overflow. acc32 kernels keep 32 bits: the caller has proven for each row that sum |w| * max|x| + |bias| < 2^31,
 * with int16 weights the rounding term being part of the bias. acc64 kernels keep 64 bits, which 2^31 columns cannot
 * overflow.
 */
#ifndef SCALPEL_KERNELS_H
#define SCALPEL_KERNELS_H

#include <stdint.h>

/* Grows with every change of a layout or of a function's meaning. */
#define SCALPEL_KERNELS_ABI 2

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Layers with weights -----------------------------------------------------------------------------------------
 *
 * A sparse matrix W[M, K] is group-CSR with groups of r rows and c columns: `counts` holds the number of groups of
 * each row block (ceil(M / r) numbers); `columns` one entry a group, block after block, from left to right; `values`
 * [n_groups][r][c] in the same order. Rows beyond M, in the last block, have weights of 0. c is 2 for int16
 * weights and 4 for int8 weights.
 *
 * `columns` of FC layers are column / c, in uint8_t or uint16_t. Those of CONV layers are uint16_t and say where in
 * the padded input the group lies, seen from the first value of the window, in units of c values. The columns of
 * a group lie together in the padded input, in one run (see scalpel_runs), whose last group is filled up with zeros;
 * runs begin at multiples of c. With a multiple of c for channels that is
 *     ((kh * dilation_h * padded_width + kw * dilation_w) * channels + channel) / c
 * with channel counted in the whole input, so groups of the convolution need no further care. With any other number
 * of channels, one group, no dilation_w, and a padded width that makes rows a multiple of c, it is
 *     (kh * dilation_h * padded_width * channels + kw * channels + channel) / c.
 *
 * Dense weights are interleaved for the kernel. FC: the rows are cut into blocks of 4, then (M mod 4) one of 2, one of
 * 1. A block of r rows is stored as [ceil(K / c)][r][c], K filled up with zeros. CONV: blocks of 2, then one of 1;
 * K is a list of runs, the stretches of the window that lie together in the input (see scalpel_runs), and a block
 * is stored as [n_runs][ceil(run_length / c)][r][c], each run filled up with zeros.
 *
 * Four int8 weights w0..w3 of one row, side by side in K, are stored in the order w0, w2, w1, w3, everywhere but in
 * depthwise layers: SXTB16 then unpacks (w0, w1) and (w2, w3), pairs that meet the int16 inputs as they lie.
 */

/* int16 weights, powers of two for scales: y = clamp((bias' + sum w * x) >> shift, min, max), with
 * bias' = bias + (shift > 0 ? 2^(shift - 1) : 0), which makes the shift round half up. */
typedef struct {
  const int16_t *values;
  const void *columns;    /* uint8_t or uint16_t, as the function says; null if dense */
  const uint16_t *counts; /* null if dense */
  const void *bias;       /* bias', of each row: int32_t for acc32 functions, int64_t for acc64 ones; never null */
  uint16_t rows;          /* M */
  uint16_t inputs;        /* K; used by scalpel_dense_fc_* alone */
  int16_t min;
  int16_t max;
  uint8_t shift; /* 0..31 for acc32, 0..62 for acc64 */
} scalpel_q15_layer;

/* int8 weights, int16 inputs (int8 ones go through scalpel_pad_8_to_16 first), a scale for each row:
 *     y = clamp(zero_point + ((acc * multiplier + (shift > 0 ? 2^(shift - 1) : 0)) >> shift), min, max)
 * in 64 bits, acc = bias + sum w * x in 32 or 64: with 64, the caller has proven that the product and the rounding term
 * stay below 2^63 (fewer bits of a multiplier do that). The zero point of x is folded into the bias; a border holds it as
 * value. acc32 is fastest with shift >= 33: then one SMMUL-like step does it. */
typedef struct {
  const int8_t *values;
  const void *columns;
  const uint16_t *counts;
  const void *bias; /* of each row: int32_t for acc32 functions, int64_t for acc64 ones */
  const int32_t *multipliers; /* of each row, 0..2^31-1 */
  const uint8_t *shifts;      /* of each row, 0..62 */
  uint16_t rows;
  uint16_t inputs;
  int16_t zero_point; /* of y */
  int16_t min;        /* of y, zero point included; within int8 if y_is_int8 */
  int16_t max;
  uint8_t y_is_int8; /* y is int8_t[] if 1, int16_t[] if 0 */
} scalpel_w8_layer;

/* How a window slides over the padded input, and where the outputs go (HWC, M channels). */
typedef struct {
  uint16_t height; /* of the output */
  uint16_t width;
  uint32_t x_row_step;    /* from window to window below: stride_h * padded_width * channels */
  uint32_t x_column_step; /* from window to window on the right: stride_w * channels */
  uint32_t y_row_step;    /* width * y_pixel_step, or more: the output may lie inside a padded image */
  uint32_t y_pixel_step;  /* M, or more: the output may be some of the channels of a concatenation */
} scalpel_windows;

/* The stretches of a window that lie together in the padded input. With dilation_w 1 and one group there are kernel_h
 * of kernel_w * channels values; otherwise kernel_h * kernel_w of channels / groups. */
typedef struct {
  const uint32_t *offsets; /* of each, from the first value of the window (of the group's first channel) */
  uint16_t count;
  uint16_t length;
  uint16_t groups;        /* of the convolution; rows / groups rows see channels from group * group_channels on */
  uint16_t group_channels; /* channels / groups */
} scalpel_runs;

/* FC, sparse: scalpel_fc_q15_RxC_INDEX_ACC(layer, x, y): x int16_t[K rounded up to c], y int16_t[M]. */
#define SCALPEL_DECLARE_FC_Q15(SHAPE)                                                                               \
  void scalpel_fc_q15_##SHAPE##_u8_acc32(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y);  \
  void scalpel_fc_q15_##SHAPE##_u16_acc32(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y); \
  void scalpel_fc_q15_##SHAPE##_u8_acc64(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y);  \
  void scalpel_fc_q15_##SHAPE##_u16_acc64(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y)
SCALPEL_DECLARE_FC_Q15(1x2);
SCALPEL_DECLARE_FC_Q15(2x2);
SCALPEL_DECLARE_FC_Q15(4x2);

/* scalpel_fc_w8_RxC_INDEX_ACC(layer, x, y): y int8_t[M] or int16_t[M]. */
#define SCALPEL_DECLARE_FC_W8(SHAPE)                                                               \
  void scalpel_fc_w8_##SHAPE##_u8_acc32(const scalpel_w8_layer *layer, const int16_t *x, void *y);  \
  void scalpel_fc_w8_##SHAPE##_u16_acc32(const scalpel_w8_layer *layer, const int16_t *x, void *y); \
  void scalpel_fc_w8_##SHAPE##_u8_acc64(const scalpel_w8_layer *layer, const int16_t *x, void *y);  \
  void scalpel_fc_w8_##SHAPE##_u16_acc64(const scalpel_w8_layer *layer, const int16_t *x, void *y)
SCALPEL_DECLARE_FC_W8(1x4);
SCALPEL_DECLARE_FC_W8(2x4);
SCALPEL_DECLARE_FC_W8(4x4);

/* CONV, sparse; a row block never straddles two groups of the convolution. */
#define SCALPEL_DECLARE_CONV_Q15(SHAPE)                                                                                \
  void scalpel_conv_q15_##SHAPE##_acc32(const scalpel_q15_layer *layer, const scalpel_windows *windows,      \
                                        const int16_t *x, int16_t *y);                                                 \
  void scalpel_conv_q15_##SHAPE##_acc64(const scalpel_q15_layer *layer, const scalpel_windows *windows,      \
                                        const int16_t *x, int16_t *y)
SCALPEL_DECLARE_CONV_Q15(1x2);
SCALPEL_DECLARE_CONV_Q15(2x2);
SCALPEL_DECLARE_CONV_Q15(4x2);

#define SCALPEL_DECLARE_CONV_W8(SHAPE)                                                                     \
  void scalpel_conv_w8_##SHAPE##_acc32(const scalpel_w8_layer *layer, const scalpel_windows *windows,      \
                                       const int16_t *x, void *y);                                         \
  void scalpel_conv_w8_##SHAPE##_acc64(const scalpel_w8_layer *layer, const scalpel_windows *windows,      \
                                       const int16_t *x, void *y)
SCALPEL_DECLARE_CONV_W8(1x4);
SCALPEL_DECLARE_CONV_W8(2x4);
SCALPEL_DECLARE_CONV_W8(4x4);

/* FC, dense: x int16_t[inputs]. */
void scalpel_dense_fc_q15_acc32(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y);
void scalpel_dense_fc_q15_acc64(const scalpel_q15_layer *layer, const int16_t *x, int16_t *y);
void scalpel_dense_fc_w8_acc32(const scalpel_w8_layer *layer, const int16_t *x, void *y);
void scalpel_dense_fc_w8_acc64(const scalpel_w8_layer *layer, const int16_t *x, void *y);

/* CONV, dense: any number of channels, any groups; rows blocks never straddle groups (each group has its own blocks
 * of 2, then 1). */
void scalpel_dense_conv_q15_acc32(const scalpel_q15_layer *layer, const scalpel_windows *windows,
                                  const scalpel_runs *runs, const int16_t *x, int16_t *y);
void scalpel_dense_conv_q15_acc64(const scalpel_q15_layer *layer, const scalpel_windows *windows,
                                  const scalpel_runs *runs, const int16_t *x, int16_t *y);
void scalpel_dense_conv_w8_acc32(const scalpel_w8_layer *layer, const scalpel_windows *windows,
                                 const scalpel_runs *runs, const int16_t *x, void *y);
void scalpel_dense_conv_w8_acc64(const scalpel_w8_layer *layer, const scalpel_windows *windows,
                                 const scalpel_runs *runs, const int16_t *x, void *y);

/* Depthwise CONV (groups == channels == rows). values [taps][rows], in the order of `taps`, the offsets of the window's
 * kernel_h * kernel_w values in the padded input: (kh * dilation_h * padded_width + kw * dilation_w) * channels. int8
 * weights lie in their natural order. */
void scalpel_depthwise_q15_acc32(const scalpel_q15_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                                 uint16_t n_taps, const int16_t *x, int16_t *y);
void scalpel_depthwise_q15_acc64(const scalpel_q15_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                                 uint16_t n_taps, const int16_t *x, int16_t *y);
void scalpel_depthwise_w8_acc32(const scalpel_w8_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                                uint16_t n_taps, const int16_t *x, void *y);
void scalpel_depthwise_w8_acc64(const scalpel_w8_layer *layer, const scalpel_windows *windows, const uint32_t *taps,
                                uint16_t n_taps, const int16_t *x, void *y);

/* ---- Copies ------------------------------------------------------------------------------------------------------ */

/* Copies an image [height, width, channels] into [top + height + bottom, left + width + right, y_channels]: all
 * else of y, channels beyond the image's included, becomes `value`. */
typedef struct {
  uint16_t height;
  uint16_t width;
  uint16_t channels;
  uint16_t y_channels; /* at least channels */
  uint16_t top;
  uint16_t left;
  uint16_t bottom;
  uint16_t right;
  int16_t value;
} scalpel_padding;

void scalpel_pad_16(const scalpel_padding *padding, const int16_t *x, int16_t *y);
void scalpel_pad_8(const scalpel_padding *padding, const int8_t *x, int8_t *y);
void scalpel_pad_8_to_16(const scalpel_padding *padding, const int8_t *x, int16_t *y);

/* y[c][p] = x[p][c]: an image of `pixels` pixels from HWC to CHW; the same with the numbers exchanged is the way back. */
void scalpel_transpose_16(uint32_t pixels, uint32_t channels, const int16_t *x, int16_t *y);
void scalpel_transpose_8(uint32_t pixels, uint32_t channels, const int8_t *x, int8_t *y);

/* ---- Element by element ------------------------------------------------------------------------------------------ */

/* y = clamp(y_zero_point + (((x - x_zero_point) * multiplier + (shift > 0 ? 2^(shift - 1) : 0)) >> shift), min, max)
 * in 64 bits: another scale, a clamp (multiplier 1, shift 0), a part of a concatenation (steps). */
typedef struct {
  uint32_t pixels;
  uint32_t channels;
  uint32_t x_pixel_step; /* channels, or more */
  uint32_t y_pixel_step;
  int32_t multiplier; /* at least 0 */
  int16_t x_zero_point;
  int16_t y_zero_point;
  int16_t min;
  int16_t max;
  uint8_t shift; /* 0..62 */
} scalpel_rescaling;

void scalpel_rescale_16(const scalpel_rescaling *rescaling, const int16_t *x, int16_t *y);
void scalpel_rescale_8(const scalpel_rescaling *rescaling, const int8_t *x, int8_t *y);
void scalpel_rescale_16_to_8(const scalpel_rescaling *rescaling, const int16_t *x, int8_t *y);
void scalpel_rescale_8_to_16(const scalpel_rescaling *rescaling, const int8_t *x, int16_t *y);

/* y = clamp(zero_point + ((sum of (x_i - x_zero_point_i) * multiplier_i + (shift > 0 ? 2^(shift - 1) : 0)) >> shift),
 * min, max) in 64 bits, i = 0, 1. y may be one of the inputs. */
typedef struct {
  uint32_t length;
  int32_t multiplier[2]; /* at least 0 */
  int16_t x_zero_point[2];
  int16_t zero_point;
  int16_t min;
  int16_t max;
  uint8_t shift; /* 0..62 */
} scalpel_addition;

void scalpel_add_16(const scalpel_addition *addition, const int16_t *x0, const int16_t *x1, int16_t *y);
void scalpel_add_8(const scalpel_addition *addition, const int8_t *x0, const int8_t *x1, int8_t *y);

/* Any function of one number. int8: y = table[x + 128], 256 entries. int16: 513 entries, for x = -32768, -32640, ...,
 * 32768, and between them straight lines: with i = (x + 32768) >> 7 and f = (x + 32768) & 127,
 * y = table[i] + (((table[i + 1] - table[i]) * f + 64) >> 7). */
void scalpel_lookup_8(uint32_t length, const int8_t *table, const int8_t *x, int8_t *y);
void scalpel_lookup_16(uint32_t length, const int16_t *table, const int16_t *x, int16_t *y);

/* ---- Pools ------------------------------------------------------------------------------------------------------- */

/* Windows start at (oh * stride_h - top, ow * stride_w - left) and are cut off at the edges of the image; at least one
 * value of the image is in each. */
typedef struct {
  uint16_t height; /* of x */
  uint16_t width;
  uint16_t channels;
  uint16_t y_height;
  uint16_t y_width;
  uint16_t kernel_h;
  uint16_t kernel_w;
  uint16_t stride_h;
  uint16_t stride_w;
  uint16_t dilation_h;
  uint16_t dilation_w;
  uint16_t top;
  uint16_t left;
} scalpel_pool;

void scalpel_max_pool_16(const scalpel_pool *pool, const int16_t *x, int16_t *y);
void scalpel_max_pool_8(const scalpel_pool *pool, const int8_t *x, int8_t *y);

/* y = floor((2 * sum + n) / (2 * n)): half up. n counts the values of the image in the window; or it is kernel_h *
 * kernel_w if `include_padding`, and each value outside of the image then counts as `padding_value`. (2^15 values
 * of a window at most.) */
void scalpel_average_pool_16(const scalpel_pool *pool, uint8_t include_padding, int16_t padding_value,
                             const int16_t *x, int16_t *y);
void scalpel_average_pool_8(const scalpel_pool *pool, uint8_t include_padding, int8_t padding_value, const int8_t *x,
                            int8_t *y);

/* ---- Others ------------------------------------------------------------------------------------------------------ */

/* Local response normalization across channels; channel c sees channels c - before .. c + after that exist:
 *     q = min((sum of x^2, in 64 bits) >> square_shift, ((entries - 1) << fraction_bits) - 1)
 *     i = q >> fraction_bits, f = q mod 2^fraction_bits
 *     factor = table[i] - (((table[i] - table[i + 1]) * f) >> fraction_bits)
 *     y = clamp((x * factor + 2^(shift - 1)) >> shift, min, max)
 * The table never rises, and is nowhere above 32767. */
typedef struct {
  uint32_t pixels;
  uint16_t channels;
  uint16_t before;
  uint16_t after;
  const uint16_t *table; /* [entries], at least 2 */
  uint16_t entries;
  uint8_t square_shift;  /* 0..63 */
  uint8_t fraction_bits; /* 0..15, (entries - 1) << fraction_bits at most 2^31 */
  uint8_t shift;         /* 1..31 */
  int16_t min;
  int16_t max;
} scalpel_lrn;

void scalpel_lrn_16(const scalpel_lrn *lrn, const int16_t *x, int16_t *y);

/* Softmax of one vector:
 *     e_i = table[min((max(x) - x_i) >> index_shift, entries - 1)]
 *     y_i = min(zero_point + floor((e_i * one + floor(S / 2)) / S), max), S = sum of e_i
 * table[0] > 0; one is 1.0 in the scale of y (such as 32768); no e_i is above 32767. */
typedef struct {
  uint32_t length; /* at most 65536 */
  const uint16_t *table;
  uint16_t entries;
  uint8_t index_shift;
  uint32_t one; /* at most 32768 */
  int16_t zero_point;
  int16_t max;
} scalpel_softmax;

void scalpel_softmax_16(const scalpel_softmax *softmax, const int16_t *x, int16_t *y);
void scalpel_softmax_8(const scalpel_softmax *softmax, const int8_t *x, int8_t *y);

/* The index of the first largest value. length at least 1. */
uint32_t scalpel_argmax_16(uint32_t length, const int16_t *x);
uint32_t scalpel_argmax_8(uint32_t length, const int8_t *x);

#ifdef __cplusplus
}
#endif

#endif
