// Local response normalisation on vector kernels: a panel of pixels at a time, few enough that the rows of a window
// stay in the first cache until the last channel that looks at them.
#include <algorithm>

#include "kernels/lrn_windows.h"
#include "kernels/parallel.h"
#include "kernels/plans.h"

namespace scalpel {
namespace {

constexpr double kOutputsPerTask = 4e4;  // about 10 µs
constexpr int64_t kPanel = 512;          // pixels

class VectorLrnPlan final : public LrnPlan {
 public:
  VectorLrnPlan(const LrnView& lrn, const LrnKernel& kernel) : lrn_(lrn), kernel_(kernel) {}

  void run(const float* X, int64_t batch, int64_t pixels, float* Y, const Parallel& parallel) const override {
    const int64_t C = lrn_.channels, panels = (pixels + kPanel - 1) / kPanel;
    const int64_t items = batch * panels * C;
    const size_t tasks = task_count(static_cast<double>(batch * C) * static_cast<double>(pixels), kOutputsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(items, task + 1, tasks);
      for (int64_t i = part_begin(items, task, tasks); i < end;) {
        const int64_t image = i / C / panels, first_pixel = i / C % panels * kPanel;
        const int64_t at = image * C * pixels + first_pixel;
        LrnCall call{};
        call.channel_begin = i % C;
        call.channel_end = std::min(C, call.channel_begin + end - i);
        call.window_begin = lrn_.begin.data();
        call.window_end = lrn_.end.data();
        call.bias = lrn_.bias.data();
        call.alpha = lrn_.alpha;
        call.from = X + at;
        call.ld = pixels;
        call.pixels = std::min(kPanel, pixels - first_pixel);
        call.to = Y + at;
        kernel_.run(call);
        i += call.channel_end - call.channel_begin;
      }
    });
  }

 private:
  LrnWindows lrn_;
  const LrnKernel& kernel_;
};

}  // namespace

std::unique_ptr<LrnPlan> make_vector_lrn_plan(const LrnView& lrn, const KernelSet& kernels) {
  const LrnKernel* kernel = std::find_if(kernels.lrn, kernels.lrn + kernels.n_lrn,
                                         [&](const LrnKernel& one) { return one.beta == lrn.beta; });
  return std::make_unique<VectorLrnPlan>(lrn, *kernel);
}

}  // namespace scalpel
