#include <vector>

#include "kernels/int8.h"
#include "kernels/parallel.h"
#include "kernels/scalar_matrix.h"

namespace scalpel {
namespace {

constexpr double kMultiplyAddsPerTask = 1e5;  // about 50 µs

class ScalarInt8GemmPlan final : public Int8GemmPlan {
 public:
  explicit ScalarInt8GemmPlan(const GroupCsrView& matrix) : M_(matrix.M), K_(matrix.K), r_(matrix.r), c_(matrix.c) {
    const auto* values = static_cast<const int8_t*>(matrix.values);
    values_.assign(values, values + matrix.n_groups * r_ * c_);
    row_offsets_.assign(matrix.row_offsets, matrix.row_offsets + matrix.n_row_offsets);
    for (int64_t i = 0; i < matrix.n_groups; ++i) columns_.push_back(column_of(matrix, i));
  }

  size_t workspace_bytes(int64_t) const override { return 0; }

  void run(const int8_t* X, int64_t N, const int32_t* bias, int32_t* Y, void*,
           const Parallel& parallel) const override {
    const int64_t outputs = N * M_;
    const double work = static_cast<double>(values_.size()) * static_cast<double>(N);
    const size_t tasks = task_count(work, kMultiplyAddsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(outputs, task + 1, tasks);
      for (int64_t i = part_begin(outputs, task, tasks); i < end; ++i) {
        const int64_t m = i % M_;
        const int32_t sum = row_sum(m, X + i / M_ * K_);
        const uint32_t start = bias != nullptr ? static_cast<uint32_t>(bias[m]) : 0;
        Y[i] = static_cast<int32_t>(start + static_cast<uint32_t>(sum));
      }
    });
  }

 private:
  int32_t row_sum(int64_t m, const int8_t* x) const {
    int32_t sum = 0;
    const auto block = static_cast<size_t>(m / r_);
    for (int64_t g = row_offsets_[block]; g < row_offsets_[block + 1]; ++g) {
      const int64_t first = columns_[static_cast<size_t>(g)] * c_;
      const int8_t* weights = values_.data() + (g * r_ + m % r_) * c_;
      for (int64_t j = 0; j < c_ && first + j < K_; ++j) sum += weights[j] * x[first + j];
    }
    return sum;
  }

  int64_t M_, K_, r_, c_;
  std::vector<int8_t> values_;        // [n_groups, r, c]
  std::vector<int32_t> row_offsets_;  // [ceil(M / r) + 1]
  std::vector<int64_t> columns_;      // [n_groups]
};

}  // namespace

std::unique_ptr<Int8GemmPlan> make_scalar_int8_gemm_plan(const GroupCsrView& matrix) {
  return std::make_unique<ScalarInt8GemmPlan>(matrix);
}

}  // namespace scalpel
