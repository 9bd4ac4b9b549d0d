#include <algorithm>

#include "kernels/activation.h"
#include "kernels/conv_geometry.h"
#include "kernels/parallel.h"
#include "kernels/plans.h"
#include "kernels/scalar_matrix.h"

namespace scalpel {
namespace {

constexpr double kMultiplyAddsPerTask = 1e5;  // about 50 µs

class ScalarConvPlan final : public ConvPlan {
 public:
  ScalarConvPlan(const GroupCsrView& matrix, const ConvGeometry& geometry) : matrix_(matrix), geometry_(geometry) {}

  bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const override {
    return scalpel::output_size(geometry_, in_h, in_w, out_h, out_w);
  }

  size_t workspace_bytes(int64_t, int64_t, int64_t) const override { return 0; }

  void run(const float* X, int64_t batch, int64_t in_h, int64_t in_w, float* Y, const Epilogue& epilogue, void*,
           const Parallel& parallel) const override {
    int64_t out_h, out_w;
    if (!output_size(in_h, in_w, &out_h, &out_w)) return;
    const int64_t M = matrix_.M, pixels = out_h * out_w;
    const double work = static_cast<double>(matrix_.values.size()) * static_cast<double>(batch * pixels);
    const size_t tasks = task_count(work, kMultiplyAddsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(batch * M, task + 1, tasks);
      for (int64_t i = part_begin(batch * M, task, tasks); i < end; ++i) {
        const float* image = X + i / M * geometry_.in_channels * in_h * in_w;
        run_row(image, i % M, in_h, in_w, out_h, out_w, Y + i * pixels, epilogue,
                epilogue.residual != nullptr ? epilogue.residual + i * pixels : nullptr);
      }
    });
  }

 private:
  // One output channel of one image.
  void run_row(const float* image, int64_t m, int64_t in_h, int64_t in_w, int64_t out_h, int64_t out_w, float* y,
               const Epilogue& epilogue, const float* residual) const {
    const int64_t kernel_h = geometry_.kernel[0], kernel_w = geometry_.kernel[1];
    const int64_t channels = geometry_.in_channels / geometry_.group;
    const int64_t first_channel = m / (matrix_.M / geometry_.group) * channels;
    std::fill_n(y, out_h * out_w, epilogue.bias != nullptr ? epilogue.bias[m] : 0.0f);
    matrix_.for_each_in_row(m, [&](int64_t k, float w) {
      const float* plane = image + (first_channel + k / (kernel_h * kernel_w)) * in_h * in_w;
      const int64_t top = k / kernel_w % kernel_h * geometry_.dilations[0] - geometry_.pads[0];
      const int64_t left = k % kernel_w * geometry_.dilations[1] - geometry_.pads[1];
      for (int64_t oy = 0; oy < out_h; ++oy) {
        const int64_t iy = oy * geometry_.strides[0] + top;
        if (iy < 0 || iy >= in_h) continue;
        for (int64_t ox = 0; ox < out_w; ++ox) {
          const int64_t ix = ox * geometry_.strides[1] + left;
          if (ix >= 0 && ix < in_w) y[oy * out_w + ox] += w * plane[iy * in_w + ix];
        }
      }
    });
    for (int64_t p = 0; p < out_h * out_w; ++p) {
      y[p] = activate(residual != nullptr ? y[p] + residual[p] : y[p], epilogue.min, epilogue.max, epilogue.gate);
    }
  }

  ScalarMatrix matrix_;
  ConvGeometry geometry_;
};

}  // namespace

std::unique_ptr<ConvPlan> make_scalar_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry) {
  return std::make_unique<ScalarConvPlan>(matrix, geometry);
}

}  // namespace scalpel
