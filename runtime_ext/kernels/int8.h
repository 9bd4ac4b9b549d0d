// Matrices of int8 times activations of int8, summed exactly in int32: a family of its own beside the kernels of float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/interface.h"

namespace scalpel {

// More products than this could overflow their sum.
constexpr int64_t kMostInt8Products = INT32_MAX / (128 * 128);

// Y[N, M] = X[N, K] · Wᵀ + bias
class Int8GemmPlan {
 public:
  virtual ~Int8GemmPlan() = default;
  virtual size_t workspace_bytes(int64_t N) const = 0;  // 64-byte aligned by the caller
  // `bias` is [M], or null; adding it wraps around.
  virtual void run(const int8_t* X, int64_t N, const int32_t* bias, int32_t* Y, void* workspace,
                   const Parallel& parallel) const = 0;
};

// A range of row blocks of `rows` rows. A step multiplies a quad, four inputs in a row, by four weights of each row.
struct Int8Call {
  const int64_t* begin;   // [blocks + 1], first step of each
  const int8_t* weights;  // [steps, rows, 4]
  const uint32_t* quads;  // [steps]
  int64_t first_block, last_block;
  int64_t M;
  const int8_t* X;  // GEMV: [quads, 4]; SpMM: [quads, N rounded up to a multiple of 4, 4]
  int64_t N;
  const int32_t* bias;  // [M], or null
  int32_t* Y;           // [N, M]
};

struct Int8Kernel {
  const char* name;
  int rows;  // of a row block
  void (*gemv)(const Int8Call& call);  // N is 1
  void (*spmm)(const Int8Call& call);
};

// Those of a machine, most rows first; the last has one.
struct Int8Kernels {
  const Int8Kernel* kernels;
  size_t count;
};

std::unique_ptr<Int8GemmPlan> make_scalar_int8_gemm_plan(const GroupCsrView& matrix);
std::unique_ptr<Int8GemmPlan> make_vector_int8_gemm_plan(const GroupCsrView& matrix, const Int8Kernels& kernels);

// Null, and a sentence in *error, if the arrays are inconsistent or K is more than kMostInt8Products. The values of the
// matrix are int8, whatever its value_type. With groups of a multiple of four columns, dot products of the machine are
// used where the instruction set is `isa` and it has them.
std::unique_ptr<Int8GemmPlan> make_int8_gemm_plan(const GroupCsrView& matrix, Isa isa, std::string* error);

}  // namespace scalpel
