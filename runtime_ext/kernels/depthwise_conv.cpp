// Depthwise Conv (each channel has a kernel of its own) on vector kernels: the input is read in place.
#include <algorithm>

#include "kernels/activation.h"
#include "kernels/conv_geometry.h"
#include "kernels/parallel.h"
#include "kernels/plans.h"
#include "kernels/scalar_matrix.h"

namespace scalpel {
namespace {

constexpr double kOutputsPerTask = 4e4;     // about 10 µs
constexpr int64_t kFloatsAtOnce = 1 << 12;  // of input and output, which stay in the first cache meanwhile

class DepthwiseConvPlan final : public ConvPlan {
 public:
  DepthwiseConvPlan(std::vector<float> weights, std::vector<bool> empty, const ConvGeometry& geometry,
                    const DepthwiseKernel& kernel, const KernelSet& kernels)
      : weights_(std::move(weights)), empty_(std::move(empty)), geometry_(geometry), kernel_(kernel), kernels_(kernels) {}

  bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const override {
    return scalpel::output_size(geometry_, in_h, in_w, out_h, out_w);
  }

  size_t workspace_bytes(int64_t, int64_t, int64_t) const override { return 0; }

  void run(const float* X, int64_t batch, int64_t in_h, int64_t in_w, float* Y, const Epilogue& epilogue, void*,
           const Parallel& parallel) const override {
    int64_t out_h, out_w;
    if (!output_size(in_h, in_w, &out_h, &out_w)) return;
    const int64_t C = geometry_.in_channels, pixels = out_h * out_w, in_pixels = in_h * in_w;
    const int64_t at_once = std::max<int64_t>(kFloatsAtOnce / std::max<int64_t>(in_pixels + pixels, 1), 1);
    const size_t tasks =
        task_count(static_cast<double>(batch * C) * static_cast<double>(pixels), kOutputsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(batch * C, task + 1, tasks);
      for (int64_t i = part_begin(batch * C, task, tasks); i < end;) {
        const int64_t channel = i % C;
        const bool empty = empty_[static_cast<size_t>(channel)];
        DepthwiseCall call{};
        call.channels = 1;
        while (call.channels < std::min({at_once, end - i, C - channel}) &&
               empty_[static_cast<size_t>(channel + call.channels)] == empty) {
          ++call.channels;
        }
        call.from = X + i * in_pixels;
        call.in_h = in_h;
        call.in_w = in_w;
        call.top = geometry_.pads[0];
        call.left = geometry_.pads[1];
        call.weights = weights_.data() + channel * kernel_.size * kernel_.size;
        call.bias = epilogue.bias != nullptr ? epilogue.bias + channel : nullptr;
        call.to = Y + i * pixels;
        call.out_h = out_h;
        call.out_w = out_w;
        call.residual = epilogue.residual != nullptr ? epilogue.residual + i * pixels : nullptr;
        call.min = epilogue.min;
        call.max = epilogue.max;
        if (empty) {
          fill(call);
        } else {
          kernel_.run(call);
        }
        kernels_.gate({epilogue.gate, call.to, 1, call.channels * pixels, 0});
        i += call.channels;
      }
    });
  }

 private:
  // Channels without weights.
  static void fill(const DepthwiseCall& call) {
    const int64_t pixels = call.out_h * call.out_w;
    for (int64_t i = 0; i < call.channels * pixels; ++i) {
      const float bias = call.bias != nullptr ? call.bias[i / pixels] : 0.0f;
      const float residual = call.residual != nullptr ? call.residual[i] : 0.0f;
      call.to[i] = clamp(bias + residual, call.min, call.max);
    }
  }

  std::vector<float> weights_;  // [in_channels, size, size]
  std::vector<bool> empty_;     // [in_channels]: which have none stored
  ConvGeometry geometry_;
  const DepthwiseKernel& kernel_;
  const KernelSet& kernels_;
};

// The kernel for this geometry, or null.
const DepthwiseKernel* find_kernel(const KernelSet& kernels, const ConvGeometry& geometry) {
  for (size_t i = 0; i < kernels.n_depthwise; ++i) {
    const DepthwiseKernel& kernel = kernels.depthwise[i];
    bool fits = true;
    for (int axis = 0; axis < 2; ++axis) {
      fits = fits && geometry.kernel[axis] == kernel.size && geometry.strides[axis] == kernel.stride &&
             geometry.dilations[axis] == 1;
    }
    if (fits) return &kernel;
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<ConvPlan> make_depthwise_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                   const KernelSet& kernels) {
  if (geometry.group != geometry.in_channels || matrix.M != geometry.group) return nullptr;
  const DepthwiseKernel* kernel = find_kernel(kernels, geometry);
  if (kernel == nullptr) return nullptr;
  const ScalarMatrix portable(matrix);
  std::vector<float> weights(static_cast<size_t>(matrix.M * matrix.K));
  std::vector<bool> empty(static_cast<size_t>(matrix.M));
  for (int64_t m = 0; m < matrix.M; ++m) {
    int64_t stored = 0;
    portable.for_each_in_row(m, [&](int64_t k, float weight) {
      weights[static_cast<size_t>(m * matrix.K + k)] = weight;
      ++stored;
    });
    // A weight that is not stored is no multiplication by zero, which would make NaN of an infinity.
    if (stored != 0 && stored != matrix.K) return nullptr;
    empty[static_cast<size_t>(m)] = stored == 0;
  }
  return std::make_unique<DepthwiseConvPlan>(std::move(weights), std::move(empty), geometry, *kernel, kernels);
}

}  // namespace scalpel
