// Gemm of int8 on kernels that add dot products of four: row by row of X for a few rows, all of them together for more.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/int8.h"
#include "kernels/parallel.h"
#include "kernels/scalar_matrix.h"

namespace scalpel {
namespace {

constexpr int64_t kQuad = 4, kPixelsOfVector = 4;
constexpr int64_t kMostGemvRows = 3;           // of X: SpMM computes four at least
constexpr double kMultiplyAddsPerTask = 4e5;   // about 10 µs

class VectorInt8GemmPlan final : public Int8GemmPlan {
 public:
  VectorInt8GemmPlan(const GroupCsrView& matrix, const Int8Kernel& kernel)
      : kernel_(kernel), M_(matrix.M), K_(matrix.K), quads_of_row_((matrix.K + kQuad - 1) / kQuad) {
    const int64_t r = matrix.r, rows = kernel.rows;
    begin_.push_back(0);
    for (int64_t first = 0; first < M_; first += rows) {
      append_block(matrix, first / r, first % r);
      begin_.push_back(static_cast<int64_t>(quads_.size()));
    }
  }

  size_t workspace_bytes(int64_t N) const override {
    return static_cast<size_t>(quads_of_row_ * kQuad * (N <= kMostGemvRows ? N : padded(N)));
  }

  void run(const int8_t* X, int64_t N, const int32_t* bias, int32_t* Y, void* workspace,
           const Parallel& parallel) const override {
    if (N == 0 || M_ == 0) return;
    auto* packed = static_cast<int8_t*>(workspace);
    const bool is_gemv = N <= kMostGemvRows;
    pack(X, N, is_gemv, packed, parallel);
    const int64_t blocks = static_cast<int64_t>(begin_.size()) - 1;
    const double work = static_cast<double>(weights_.size()) * static_cast<double>(N);
    const size_t tasks = task_count(work, kMultiplyAddsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      Int8Call call{begin_.data(), weights_.data(), quads_.data(), part_begin(blocks, task, tasks),
                    part_begin(blocks, task + 1, tasks), M_, packed, N, bias, Y};
      if (!is_gemv) return kernel_.spmm(call);
      call.N = 1;
      for (int64_t n = 0; n < N; ++n) {
        kernel_.gemv(call);
        call.X += quads_of_row_ * kQuad;
        call.Y += M_;
      }
    });
  }

 private:
  static int64_t padded(int64_t N) { return (N + kPixelsOfVector - 1) / kPixelsOfVector * kPixelsOfVector; }

  // The rows from `top` on of a row group. What the file holds outside the matrix is left out.
  void append_block(const GroupCsrView& matrix, int64_t group, int64_t top) {
    const auto* values = static_cast<const int8_t*>(matrix.values);
    const int64_t r = matrix.r, c = matrix.c, rows = std::min<int64_t>(kernel_.rows, M_ - group * r - top);
    for (int64_t i = matrix.row_offsets[group]; i < matrix.row_offsets[group + 1]; ++i) {
      const int64_t first = column_of(matrix, i) * c;
      for (int64_t j = 0; j < c && first + j < K_; j += kQuad) {
        std::vector<int8_t> step(static_cast<size_t>(kernel_.rows * kQuad));
        for (int64_t row = 0; row < rows; ++row) {
          std::copy_n(values + (i * r + top + row) * c + j, std::min(kQuad, K_ - first - j), step.begin() + row * kQuad);
        }
        if (std::all_of(step.begin(), step.end(), [](int8_t weight) { return weight == 0; })) continue;
        weights_.insert(weights_.end(), step.begin(), step.end());
        quads_.push_back(static_cast<uint32_t>((first + j) / kQuad));
      }
    }
  }

  // X row by row, or with the quads of all rows next to each other; zero past the end of either.
  void pack(const int8_t* X, int64_t N, bool by_row, int8_t* to, const Parallel& parallel) const {
    const int64_t rows = by_row ? N : padded(N);
    const size_t tasks = task_count(static_cast<double>(rows) * static_cast<double>(K_), kMultiplyAddsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(quads_of_row_, task + 1, tasks);
      for (int64_t quad = part_begin(quads_of_row_, task, tasks); quad < end; ++quad) {
        const auto size = static_cast<size_t>(std::min(kQuad, K_ - quad * kQuad));
        for (int64_t n = 0; n < rows; ++n) {
          int8_t* at = to + (by_row ? n * quads_of_row_ + quad : quad * rows + n) * kQuad;
          std::memset(at, 0, kQuad);
          if (n < N) std::memcpy(at, X + n * K_ + quad * kQuad, size);
        }
      }
    });
  }

  const Int8Kernel& kernel_;
  int64_t M_, K_, quads_of_row_;
  std::vector<int64_t> begin_;
  std::vector<int8_t> weights_;
  std::vector<uint32_t> quads_;
};

}  // namespace

std::unique_ptr<Int8GemmPlan> make_vector_int8_gemm_plan(const GroupCsrView& matrix, const Int8Kernels& kernels) {
  const Int8Kernel* kernel = kernels.kernels;
  while (matrix.r % kernel->rows != 0) ++kernel;
  return std::make_unique<VectorInt8GemmPlan>(matrix, *kernel);
}

}  // namespace scalpel
