#include "kernels/activation.h"
#include "kernels/parallel.h"
#include "kernels/plans.h"
#include "kernels/scalar_matrix.h"

namespace scalpel {
namespace {

constexpr double kMultiplyAddsPerTask = 1e5;  // about 50 µs

class ScalarGemmPlan final : public GemmPlan {
 public:
  explicit ScalarGemmPlan(const GroupCsrView& matrix) : matrix_(matrix) {}

  size_t workspace_bytes(int64_t) const override { return 0; }

  void run(const float* X, int64_t N, float* Y, const Epilogue& epilogue, void*,
           const Parallel& parallel) const override {
    const int64_t M = matrix_.M, K = matrix_.K, outputs = N * M;
    const double work = static_cast<double>(matrix_.values.size()) * static_cast<double>(N);
    const size_t tasks = task_count(work, kMultiplyAddsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(outputs, task + 1, tasks);
      for (int64_t i = part_begin(outputs, task, tasks); i < end; ++i) {
        const int64_t m = i % M;
        const float* x = X + i / M * K;
        float sum = epilogue.bias != nullptr ? epilogue.bias[m] : 0.0f;
        matrix_.for_each_in_row(m, [&](int64_t k, float w) { sum += w * x[k]; });
        if (epilogue.residual != nullptr) sum += epilogue.residual[i];
        Y[i] = activate(sum, epilogue.min, epilogue.max, epilogue.gate);
      }
    });
  }

 private:
  ScalarMatrix matrix_;
};

}  // namespace

std::unique_ptr<GemmPlan> make_scalar_gemm_plan(const GroupCsrView& matrix) {
  return std::make_unique<ScalarGemmPlan>(matrix);
}

}  // namespace scalpel
