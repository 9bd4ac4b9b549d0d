// The reference of local response normalisation. Squares are added in the order of the channels, beginning with the
// first of the window; s = bias + alpha * sum; s^beta is s, sqrt(s) or sqrt(s) * sqrt(sqrt(s)), which x is divided by.
#include <cmath>

#include "kernels/lrn_windows.h"
#include "kernels/parallel.h"
#include "kernels/plans.h"

namespace scalpel {
namespace {

constexpr double kSquaresPerTask = 1e5;  // about 50 µs

float power(float s, float beta) {
  if (beta == 1.0f) return s;
  const float root = std::sqrt(s);
  return beta == 0.5f ? root : root * std::sqrt(root);
}

class ScalarLrnPlan final : public LrnPlan {
 public:
  explicit ScalarLrnPlan(const LrnView& lrn) : lrn_(lrn) {}

  void run(const float* X, int64_t batch, int64_t pixels, float* Y, const Parallel& parallel) const override {
    const int64_t C = lrn_.channels;
    double work = 0;
    for (size_t c = 0; c < lrn_.begin.size(); ++c) work += lrn_.end[c] - lrn_.begin[c] + 1;
    const size_t tasks = task_count(work * static_cast<double>(batch * pixels), kSquaresPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(batch * C, task + 1, tasks);
      for (int64_t i = part_begin(batch * C, task, tasks); i < end; ++i) {
        run_channel(X + i / C * C * pixels, i % C, pixels, Y + i * pixels);
      }
    });
  }

 private:
  // One channel of one image.
  void run_channel(const float* image, int64_t channel, int64_t pixels, float* y) const {
    const auto c = static_cast<size_t>(channel);
    for (int64_t p = 0; p < pixels; ++p) {
      float sum = 0;
      for (int64_t j = lrn_.begin[c]; j < lrn_.end[c]; ++j) sum += image[j * pixels + p] * image[j * pixels + p];
      y[p] = image[channel * pixels + p] / power(lrn_.bias[c] + lrn_.alpha * sum, lrn_.beta);
    }
  }

  LrnWindows lrn_;
};

}  // namespace

std::unique_ptr<LrnPlan> make_scalar_lrn_plan(const LrnView& lrn) { return std::make_unique<ScalarLrnPlan>(lrn); }

}  // namespace scalpel
