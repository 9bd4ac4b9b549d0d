// What the ONNX Runtime operators and the Python bindings need of the kernels, and nothing of how they work.
//
// A plan is made once from the portable group-CSR arrays (it validates and repacks them for one ISA) and is
// then immutable: any number of threads may run it at the same time, each with its own workspace. Nothing here
// throws but `run`, at the first use of an input size: std::bad_alloc, or std::length_error for an image of more
// than 2^32 - 1 padded values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/activation.h"

namespace scalpel {

enum class Isa { kScalar, kAvx2, kAvx512, kNeon };

// What the values of a matrix are stored as; all of them are multiplied as float32. Integers are multiples of the scale
// of their row.
enum class ValueType { kFloat32, kFloat16, kBfloat16, kInt8 };

// The portable group-CSR arrays of a matrix W[M, K]; see scalpel_graph/group_csr.py. Borrowed, not owned.
struct GroupCsrView {
  int64_t M = 0;
  int64_t K = 0;
  int64_t r = 1;  // group shape
  int64_t c = 1;
  const void* values = nullptr;            // [n_groups, r, c] of value_type
  ValueType value_type = ValueType::kFloat32;
  const float* row_scale = nullptr;        // [M]; of kInt8 only
  int64_t n_groups = 0;
  const int32_t* row_offsets = nullptr;    // [n_row_offsets], must be ceil(M / r) + 1
  int64_t n_row_offsets = 0;
  const uint16_t* columns_u16 = nullptr;   // [n_groups]; exactly one of the two is set if n_groups > 0
  const int32_t* columns_i32 = nullptr;
};

// Empty if the arrays are consistent, else a sentence that says which one is wrong and where.
std::string validate(const GroupCsrView& matrix);

// y * gate(y) of y = clamp(product + bias + residual, min, max)
struct Epilogue {
  const float* bias = nullptr;      // [M], or none
  const float* residual = nullptr;  // laid out like the output, or none; may not alias it
  float min = -std::numeric_limits<float>::infinity();
  float max = std::numeric_limits<float>::infinity();
  Gate gate = Gate::kNone;
};

// Runs body(user, i) for i in [0, count), in any order, on as many threads as the caller has; returns when
// all are done. The kernels choose `count` by the amount of work, never by the number of threads.
struct Parallel {
  void (*run)(void* context, void (*body)(void* user, size_t i), size_t count, void* user) = nullptr;
  void* context = nullptr;
};

// Y[N, M] = X[N, K] · Wᵀ
class GemmPlan {
 public:
  virtual ~GemmPlan() = default;
  virtual size_t workspace_bytes(int64_t N) const = 0;  // 64-byte aligned by the caller
  virtual void run(const float* X, int64_t N, float* Y, const Epilogue& epilogue, void* workspace,
                   const Parallel& parallel) const = 0;
};

// 1-D convolutions are 2-D ones with a height of 1.
struct ConvGeometry {
  int64_t in_channels = 0;  // of all groups together
  int64_t group = 1;
  int64_t kernel[2] = {1, 1};
  int64_t strides[2] = {1, 1};
  int64_t dilations[2] = {1, 1};
  int64_t pads[4] = {0, 0, 0, 0};  // top, left, bottom, right
};

// Y[batch, M, out_h, out_w] = conv(X[batch, C, in_h, in_w], W[M, C / group, kernel...]); K runs over
// (C / group, kernel_h, kernel_w).
class ConvPlan {
 public:
  virtual ~ConvPlan() = default;
  // False if the padded input is smaller than the kernel.
  virtual bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const = 0;
  virtual size_t workspace_bytes(int64_t batch, int64_t in_h, int64_t in_w) const = 0;
  virtual void run(const float* X, int64_t batch, int64_t in_h, int64_t in_w, float* Y, const Epilogue& epilogue,
                   void* workspace, const Parallel& parallel) const = 0;
};

// Null, and a sentence in *error, if the arrays or the geometry are inconsistent.
std::unique_ptr<GemmPlan> make_gemm_plan(const GroupCsrView& matrix, Isa isa, std::string* error);
std::unique_ptr<ConvPlan> make_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry, Isa isa,
                                         std::string* error);

// Local response normalisation over windows of channels: what each channel is divided by. Borrowed, not owned.
struct LrnView {
  int64_t channels = 0;
  const int32_t* window_begin = nullptr;  // [channels]: channel c looks at [window_begin[c], window_end[c])
  const int32_t* window_end = nullptr;
  const float* bias = nullptr;            // [channels]
  float alpha = 0;                        // of one channel of the window
  float beta = 0;                         // 0.5, 0.75 or 1
};

// Empty if the windows lie inside the channels and there are kernels for beta, else a sentence that says what is wrong.
std::string validate(const LrnView& lrn);

// Y[n, c, p] = X[n, c, p] / (bias[c] + alpha * sum of X[n, j, p]^2 over the window of c)^beta
class LrnPlan {
 public:
  virtual ~LrnPlan() = default;
  virtual void run(const float* X, int64_t batch, int64_t pixels, float* Y, const Parallel& parallel) const = 0;
};

// Null, and the sentence of validate() in *error, if the view is inconsistent.
std::unique_ptr<LrnPlan> make_lrn_plan(const LrnView& lrn, Isa isa, std::string* error);

// The instruction sets this machine can run, checked at run time, best last.
std::vector<Isa> available_isas();
// The best of them, or what SCALPEL_ISA=scalar|avx2|avx512|neon asks for; an empty result and *error if that cannot run.
bool choose_isa(Isa* isa, std::string* error);
const char* isa_name(Isa isa);

}  // namespace scalpel
