// Conv on vector kernels, without im2col: the input, padded once, is flattened with its padding columns, so that
// each weight is one offset into it and the convolution is SpMM over a table of offsets. A stride cuts the input
// into phase planes, one for each remainder of the position by the stride that a weight falls on; within a plane
// neighbouring outputs read neighbouring inputs. Unpadded input of a convolution of stride 1 is read in place.
#include <algorithm>
#include <limits>
#include <stdexcept>

#include "kernels/conv_geometry.h"
#include "kernels/plans.h"
#include "kernels/row_blocks.h"
#include "kernels/shape_cache.h"
#include "kernels/spmm_grid.h"

namespace scalpel {
namespace {

constexpr double kFloatsPerPadTask = 1.3e5;

// A product of sizes that stays at the largest int64 instead of overflowing.
size_t saturating_product(std::initializer_list<int64_t> factors) {
  size_t product = 1;
  for (int64_t factor : factors) {
    const auto value = static_cast<size_t>(factor);
    if (value == 0) return 0;
    product = product > SIZE_MAX / 2 / value ? SIZE_MAX / 2 : product * value;
  }
  return product;
}

class VectorConvPlan final : public ConvPlan {
 public:
  VectorConvPlan(const GroupCsrView& matrix, const ConvGeometry& geometry, const KernelSet& kernels)
      : kernels_(kernels), spmm_(spmm_kernel(kernels, matrix.r)), blocks_(matrix, spmm_.rows), geometry_(geometry) {
    for (uint32_t k : blocks_.columns) {
      const Tap tap = tap_of(k);
      phases_.push_back(tap.phase);
      reach_[0] = std::max(reach_[0], tap.shift[0]);
      reach_[1] = std::max(reach_[1], tap.shift[1]);
    }
    std::sort(phases_.begin(), phases_.end());
    phases_.erase(std::unique(phases_.begin(), phases_.end()), phases_.end());
  }

  bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const override {
    return scalpel::output_size(geometry_, in_h, in_w, out_h, out_w);
  }

  size_t workspace_bytes(int64_t batch, int64_t in_h, int64_t in_w) const override {
    const Layout layout(*this, in_h, in_w);
    if (!layout.copied) return 0;
    const size_t bytes = saturating_product({batch, geometry_.in_channels, layout.channel_size, sizeof(float)});
    return bytes + static_cast<size_t>(kernels_.lanes) * sizeof(float);
  }

  void run(const float* X, int64_t batch, int64_t in_h, int64_t in_w, float* Y, const Epilogue& epilogue,
           void* workspace, const Parallel& parallel) const override {
    const Layout layout(*this, in_h, in_w);
    if (batch == 0 || blocks_.M == 0 || layout.out_h <= 0 || layout.out_w <= 0) return;
    const auto table = tables_.get({in_h, in_w}, [&] { return Table(*this, layout); });
    if (layout.copied) {
      copy_input(X, batch, in_h, in_w, layout, static_cast<float*>(workspace), parallel);
      X = static_cast<const float*>(workspace);
    }
    const int64_t image_size = geometry_.in_channels * layout.channel_size;
    const int64_t vectors = static_cast<int64_t>(table->vectors.size());
    const int64_t panel = panel_vectors();
    const int64_t panels = (vectors + panel - 1) / panel;
    const SpmmGrid grid(blocks_, batch * panels, static_cast<double>(batch * vectors * kernels_.lanes),
                        static_cast<double>(batch * image_size) * sizeof(float));
    parallel_for(parallel, grid.tasks(), [&](size_t task) {
      const size_t row_part = task % grid.row_parts, pixel_part = task / grid.row_parts;
      const int64_t pixels = layout.out_h * layout.out_w;
      SpmmCall call{};
      call.group_begin = blocks_.begin.data();
      call.weights = blocks_.weights.data();
      call.offsets = table->offsets.data();
      call.r = blocks_.r;
      call.block_begin = blocks_.part_begin(row_part, grid.row_parts);
      call.block_end = blocks_.part_begin(row_part + 1, grid.row_parts);
      call.ldy = pixels;
      call.min = epilogue.min;
      call.max = epilogue.max;
      const int64_t row = call.block_begin * blocks_.rows;
      call.rows = blocks_.M - row;
      if (epilogue.bias != nullptr) call.bias = epilogue.bias + row;
      const int64_t last = part_begin(batch * panels, pixel_part + 1, grid.pixel_parts);
      for (int64_t i = part_begin(batch * panels, pixel_part, grid.pixel_parts); i < last; ++i) {
        const int64_t image = i / panels;
        const auto panel_index = static_cast<size_t>(i % panels);
        const int64_t first = part_begin(vectors, panel_index, static_cast<size_t>(panels));
        const int64_t count = part_begin(vectors, panel_index + 1, static_cast<size_t>(panels)) - first;
        const int64_t out = (image * blocks_.M + row) * pixels;
        call.X = X + image * image_size;
        call.vectors = table->vectors.data() + first;
        call.n_vectors = count;
        call.Y = Y + out;
        call.residual = epilogue.residual != nullptr ? epilogue.residual + out : nullptr;
        spmm_.run(call);
      }
    });
  }

 private:
  // Where a weight reads: channel of the image, phase plane (row phase × stride + column phase), position in it.
  struct Tap {
    int64_t channel, phase, shift[2];
  };

  Tap tap_of(int64_t k) const {
    const int64_t kernel_h = geometry_.kernel[0], kernel_w = geometry_.kernel[1];
    const int64_t y = k / kernel_w % kernel_h * geometry_.dilations[0], x = k % kernel_w * geometry_.dilations[1];
    const int64_t *stride = geometry_.strides;
    return {k / (kernel_h * kernel_w), y % stride[0] * stride[1] + x % stride[1], {y / stride[0], x / stride[1]}};
  }

  // Vectors of pixels that a row block passes over before the next one does: as many whole tiles as keep the input
  // they read in the second cache.
  int64_t panel_vectors() const {
    constexpr int64_t kPanelFloats = 32768;
    const int64_t planes = geometry_.in_channels / geometry_.group * static_cast<int64_t>(phases_.size());
    const int64_t tile = kernels_.lanes * spmm_.max_vectors;
    return std::max<int64_t>(kPanelFloats / std::max<int64_t>(planes, 1) / tile, 1) * spmm_.max_vectors;
  }

  // The input of one size as the kernels see it.
  struct Layout {
    Layout(const VectorConvPlan& plan, int64_t in_h, int64_t in_w) {
      const ConvGeometry& geometry = plan.geometry_;
      scalpel::output_size(geometry, in_h, in_w, &out_h, &out_w);
      const bool plain = geometry.strides[0] == 1 && geometry.strides[1] == 1 &&
                         std::all_of(geometry.pads, geometry.pads + 4, [](int64_t pad) { return pad == 0; });
      // A vector must fit between the first and the last position that the outputs start from.
      copied = !plain || (out_h - 1) * in_w + out_w < plan.kernels_.lanes;
      pitch = copied ? out_w + plan.reach_[1] : in_w;
      plane_h = copied ? out_h + plan.reach_[0] : in_h;
      const int64_t planes = copied ? static_cast<int64_t>(plan.phases_.size()) : 1;
      channel_size = static_cast<int64_t>(saturating_product({planes, plane_h, pitch}));
    }
    int64_t out_h, out_w;
    bool copied;
    int64_t pitch, plane_h, channel_size;
  };

  // What the kernels go by for one size of input.
  struct Table {
    Table(const VectorConvPlan& plan, const Layout& layout) {
      const int64_t lanes = plan.kernels_.lanes, pixels = layout.out_h * layout.out_w;
      if (saturating_product({std::max<int64_t>(plan.geometry_.in_channels, 1),
                              std::max<int64_t>(static_cast<int64_t>(plan.phases_.size()), 1), layout.plane_h,
                              layout.pitch}) > std::numeric_limits<uint32_t>::max()) {
        throw std::length_error("an image of more than 2^32 - 1 padded values is too large for GroupCsrConv");
      }
      offsets.reserve(plan.blocks_.columns.size() + kStepsAhead);
      const ConvGeometry& geometry = plan.geometry_;
      const int64_t groups_of_conv_group = plan.blocks_.M / geometry.group / plan.blocks_.r;
      for (size_t group = 0; group + 1 < plan.blocks_.begin.size(); ++group) {
        const int64_t conv_group = geometry.group == 1 ? 0 : static_cast<int64_t>(group) / groups_of_conv_group;
        const int64_t first_channel = conv_group * (geometry.in_channels / geometry.group);
        for (int64_t step = plan.blocks_.begin[group]; step < plan.blocks_.begin[group + 1]; ++step) {
          const Tap tap = plan.tap_of(plan.blocks_.columns[static_cast<size_t>(step)]);
          const int64_t phase =
              std::lower_bound(plan.phases_.begin(), plan.phases_.end(), tap.phase) - plan.phases_.begin();
          offsets.push_back(static_cast<uint32_t>((first_channel + tap.channel) * layout.channel_size +
                                                  (phase * layout.plane_h + tap.shift[0]) * layout.pitch +
                                                  tap.shift[1]));
        }
      }
      offsets.resize(offsets.size() + kStepsAhead);
      // Each vector starts at the first pixel that is not covered yet, or, where that would read past the input,
      // as late as it may.
      const int64_t last_start = (layout.out_h - 1) * layout.pitch + layout.out_w - lanes;
      for (int64_t covered = 0; covered < pixels;) {
        int64_t start = covered / layout.out_w * layout.pitch + covered % layout.out_w;
        if (!layout.copied) start = std::min(start, last_start);
        unsigned mask = 0;
        int count = 0;
        for (int64_t lane = 0; lane < lanes; ++lane) {
          const int64_t y = (start + lane) / layout.pitch, x = (start + lane) % layout.pitch;
          if (y >= layout.out_h || x >= layout.out_w || y * layout.out_w + x < covered) continue;
          mask |= 1u << lane;
          ++count;
        }
        vectors.push_back({static_cast<uint32_t>(start), static_cast<uint32_t>(covered), static_cast<uint16_t>(mask),
                           static_cast<uint16_t>(count)});
        covered += count;
      }
    }
    std::vector<uint32_t> offsets;
    std::vector<PixelVector> vectors;
  };

  void copy_input(const float* X, int64_t batch, int64_t in_h, int64_t in_w, const Layout& layout, float* workspace,
                  const Parallel& parallel) const {
    const int64_t channels = batch * geometry_.in_channels;
    const size_t tasks = task_count(static_cast<double>(channels * layout.channel_size), kFloatsPerPadTask);
    std::fill_n(workspace + channels * layout.channel_size, kernels_.lanes, 0.0f);  // read with the last pixels
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(channels, task + 1, tasks);
      for (int64_t channel = part_begin(channels, task, tasks); channel < end; ++channel) {
        float* to = workspace + channel * layout.channel_size;
        for (int64_t phase : phases_) {
          // Every strides-th row and column of the padded input.
          const int64_t stride_h = geometry_.strides[0], stride_w = geometry_.strides[1];
          kernels_.copy_plane({X + channel * in_h * in_w, in_h, in_w, phase / stride_w - geometry_.pads[0],
                               phase % stride_w - geometry_.pads[1], stride_h, stride_w, to, layout.plane_h,
                               layout.pitch});
          to += layout.plane_h * layout.pitch;
        }
      }
    });
  }

  const KernelSet& kernels_;
  const SpmmKernel& spmm_;
  RowBlocks blocks_;
  ConvGeometry geometry_;
  std::vector<int64_t> phases_;   // that some weight falls on, in order
  int64_t reach_[2] = {0, 0};     // largest shift of a weight
  mutable ShapeCache<Table> tables_;
};

}  // namespace

std::unique_ptr<ConvPlan> make_vector_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                const KernelSet& kernels) {
  return std::make_unique<VectorConvPlan>(matrix, geometry, kernels);
}

}  // namespace scalpel
