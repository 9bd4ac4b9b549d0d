// Layers of int8 weights and 8-bit activations, summed exactly in int32, with the arithmetic of ONNX Runtime's kernels
// on x86-64 around the sums: what comes out equals bit for bit what QLinearConv, QGemm, QLinearMatMul, ConvInteger,
// MatMulInteger and a QLinearAdd after them give there.
//
// Plans are as in interface.h: made once from the portable group-CSR arrays, of which the values are int8 (zero point
// 0) whatever the view's value_type, then immutable. `run` throws std::bad_alloc, or std::length_error for an image of
// more than 2^32 - 1 padded values, at the first use of an input size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "kernels/interface.h"

namespace scalpel {

enum class ElementType { kUint8, kInt8, kInt32, kFloat32 };

// Activations. Padding of a convolution is the zero point.
struct QuantizedInput {
  const void* values = nullptr;  // uint8, or int8
  bool is_signed = false;
  int32_t zero_point = 0;  // in the range of the type
};

// What is added to the sums before the activation. With q the scaled sum and x a value of the residual:
//   q = fma(q, sum_scale, fma(x, scale, offset)), or, if the residual is the first operand of the addition,
//   q = fma(x, scale, fma(q, sum_scale, offset))
// For a QLinearAdd after the layer, of scales s, zero points z, and Y its result:
//   quantizes_sum with the scale, zero point and bounds of the layer's own output;
//   scale = s_residual / s_Y, sum_scale = s_layer / s_Y, offset = z_Y - (sum of each operand's ratio * zero point),
//   and Epilogue.zero_point = 0, because the offset has it.
// To add without that rounding: scale = s_residual / s_Y and offset = -scale * z_residual.
struct Residual {
  const void* values = nullptr;  // laid out like Y, or none; may not alias it
  ElementType type = ElementType::kUint8;  // kUint8, kInt8 or kFloat32
  bool is_first = false;
  float scale = 1;
  float offset = 0;
  float sum_scale = 1;
  // q = round_half_even(min(max(q, sum_min), sum_max)) + sum_zero_point before it is added; the bounds are integers.
  bool quantizes_sum = false;
  float sum_min = 0, sum_max = 0;
  int32_t sum_zero_point = 0;
};

// sum = bias[m] + sum of w[m, k] * (x[k] - zero point of X), modulo 2^32.
//   kInt32: Y = sum
//   else    q = float(sum) * scale[m] + float_bias[m] and the residual
//   kFloat32: Y = clamp(q, min, max)
//   kUint8, kInt8: Y = round_half_even(min(max(q, min'), max')) + zero_point, with min' and max' the bounds nearer to
//           zero of [min, max] and the range of the type less the zero point. NaN becomes min'.
struct QuantizedEpilogue {
  ElementType type = ElementType::kUint8;  // of Y
  const int32_t* bias = nullptr;           // [M], or none
  const float* scale = nullptr;            // [M]; only kInt32 needs none
  const float* float_bias = nullptr;       // [M], or none
  Residual residual;
  float min = -std::numeric_limits<float>::infinity();  // in steps of Y from its zero point
  float max = std::numeric_limits<float>::infinity();
  int32_t zero_point = 0;  // of Y
};

// Y[N, M] = X[N, K] · Wᵀ
class QuantizedGemmPlan {
 public:
  virtual ~QuantizedGemmPlan() = default;
  virtual size_t workspace_bytes(int64_t N) const = 0;  // 64-byte aligned by the caller
  virtual void run(const QuantizedInput& X, int64_t N, void* Y, const QuantizedEpilogue& epilogue, void* workspace,
                   const Parallel& parallel) const = 0;
};

// Y[batch, M, out_h, out_w] = conv(X[batch, C, in_h, in_w], W[M, C / group, kernel...]); as ConvPlan.
class QuantizedConvPlan {
 public:
  virtual ~QuantizedConvPlan() = default;
  // False if the padded input is smaller than the kernel.
  virtual bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const = 0;
  virtual size_t workspace_bytes(int64_t batch, int64_t in_h, int64_t in_w) const = 0;
  virtual void run(const QuantizedInput& X, int64_t batch, int64_t in_h, int64_t in_w, void* Y,
                   const QuantizedEpilogue& epilogue, void* workspace, const Parallel& parallel) const = 0;
};

// Null, and a sentence in *error, if the arrays or the geometry are inconsistent.
std::unique_ptr<QuantizedGemmPlan> make_quantized_gemm_plan(const GroupCsrView& matrix, Isa isa, std::string* error);
std::unique_ptr<QuantizedConvPlan> make_quantized_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                            Isa isa, std::string* error);

}  // namespace scalpel
