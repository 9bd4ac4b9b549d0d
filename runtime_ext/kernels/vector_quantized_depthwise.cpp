// Quantized depthwise Conv on vector kernels: each channel has kernels of its own, which are taken for dense. The pixels of
// the output are gone through as if they were one row: where the output is as wide as the input and strides are one, each
// tap reads the input moved by some pixels, and what lies in the padding is masked. With larger strides the same holds for
// phases of the input, elsewhere for planes, see vector_quantized_conv.cpp; these are copied channel by channel, and are
// read while they are in the first cache.
#include <algorithm>

#include "kernels/buffer_pool.h"
#include "kernels/conv_geometry.h"
#include "kernels/conv_taps.h"
#include "kernels/parallel.h"
#include "kernels/quad_layer.h"
#include "kernels/quantized_plans.h"
#include "kernels/scalar_matrix.h"
#include "kernels/shape_cache.h"

namespace scalpel {
namespace {

constexpr double kOutputsPerTask = 1e5;     // about 10 µs
constexpr int64_t kBytesAtOnce = 1 << 14;  // of input and output, which stay in the first cache meanwhile

class QuantizedDepthwisePlan final : public QuantizedConvPlan {
 public:
  QuantizedDepthwisePlan(const GroupCsrView& matrix, const ConvGeometry& geometry, const QuantizedKernels& kernels)
      : layer_(matrix, kernels), geometry_(geometry), taps_(geometry), tile_(4 * kernels.vector_pixels),
        padded_taps_(round_up_taps(taps_.count())), weights_(static_cast<size_t>(matrix.M * padded_taps_)) {
    const auto* values = static_cast<const int8_t*>(matrix.values);
    for (int64_t m = 0; m < matrix.M; ++m) {
      const int64_t block = m / matrix.r;
      for (int64_t i = matrix.row_offsets[block]; i < matrix.row_offsets[block + 1]; ++i) {
        const int64_t first = column_of(matrix, i) * matrix.c;
        for (int64_t j = 0; j < matrix.c && first + j < matrix.K; ++j) {
          weights_[static_cast<size_t>(m * padded_taps_ + first + j)] = values[(i * matrix.r + m % matrix.r) * matrix.c + j];
        }
      }
    }
    for (int64_t tap = 0; tap < taps_.count(); ++tap) {
      planes_.push_back(taps_.tap_of(tap).plane);
      reach_ = std::max(reach_, taps_.tap_of(tap).rows);
      phases_.push_back(taps_.shift_of(tap).phase);
    }
    for (std::vector<Plane>* list : {&planes_, &phases_}) sort_unique(list);
  }

  bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const override {
    return scalpel::output_size(geometry_, in_h, in_w, out_h, out_w);
  }

  size_t workspace_bytes(int64_t batch, int64_t in_h, int64_t in_w) const override {
    const Work work(*this, batch, in_h, in_w);
    return static_cast<size_t>(layer_.bytes()) +
           static_cast<size_t>(saturating_product({static_cast<int64_t>(work.buffers), work.buffer_bytes}));
  }

  void run(const QuantizedInput& X, int64_t batch, int64_t in_h, int64_t in_w, void* Y,
           const QuantizedEpilogue& epilogue, void* workspace, const Parallel& parallel) const override {
    const Work work(*this, batch, in_h, in_w);
    if (batch == 0 || work.pixels <= 0) return;
    const auto tables = tables_.get({in_h, in_w}, [&] { return Tables(*this, work, in_h, in_w); });
    auto* memory = static_cast<uint8_t*>(workspace);
    const QuadOutput output(layer_, X, Y, epilogue, memory);
    memory += layer_.bytes();
    const int64_t C = geometry_.in_channels, in_pixels = in_h * in_w, multiplier = layer_.matrix.M / C;
    const auto* x = static_cast<const uint8_t*>(X.values);
    QuadDepthwiseCall all{};
    all.rows_of_channel = multiplier;
    all.ld_x = work.channel_bytes;
    all.taps = taps_.count();
    all.offsets = tables->offsets.data();
    all.masks = tables->masks.data();
    all.mask_stride = work.tiles;
    all.flip = work.in_place ? output.flip : 0;
    all.fill = output.fill;
    BufferPool buffers(work.buffers);
    parallel_for(parallel, work.tasks, [&](size_t task) {
      const size_t buffer = buffers.take();
      uint8_t* const planes = memory + static_cast<int64_t>(buffer) * work.buffer_bytes;
      const int64_t end = part_begin(batch * C, task + 1, work.tasks);
      for (int64_t i = part_begin(batch * C, task, work.tasks); i < end;) {
        QuadDepthwiseCall call = all;
        const int64_t channel = i % C;
        call.channels = std::min({work.channels_at_once, end - i, C - channel});
        if (work.in_place) {
          call.X = x + i * in_pixels;
          call.begin = x;
          call.end = x + batch * C * in_pixels;
        } else {
          copy_planes(x + i * in_pixels, call.channels, in_h, in_w, work, output, planes);
          call.X = call.begin = planes;
          call.end = planes + work.buffer_bytes;
        }
        call.weights = weights_.data() + channel * multiplier * padded_taps_;
        output.multiply_channels(call, channel * multiplier, work.pixels, i / C * layer_.matrix.M * work.pixels);
        i += call.channels;
      }
      buffers.give_back(buffer);
    });
  }

 private:
  struct Work {
    Work(const QuantizedDepthwisePlan& plan, int64_t batch, int64_t in_h, int64_t in_w) {
      const ConvGeometry& geometry = plan.geometry_;
      scalpel::output_size(geometry, in_h, in_w, &out_h, &out_w);
      if (out_h <= 0 || out_w <= 0) return;
      pixels = saturating_product({out_h, out_w});
      tiles = (pixels + plan.tile_ - 1) / plan.tile_;
      in_place = geometry.strides[0] == 1 && geometry.strides[1] == 1 && out_w == in_w;
      moved = in_place || std::all_of(plan.phases_.begin(), plan.phases_.end(), [&](const Plane& phase) {
                return plan.taps_.phase_extent(in_w, phase.column, 1) <= out_w;
              });
      channel_bytes = saturating_product({in_h, in_w});
      if (!in_place) {
        planes = moved ? &plan.phases_ : &plan.planes_;
        plane_rows = moved ? plan.taps_.phase_extent(in_h, 0, 0) : out_h + plan.reach_;
        plane_size = saturating_product({plane_rows, out_w}) + kMostTilePixels;
        channel_bytes = saturating_product({static_cast<int64_t>(planes->size()), plane_size});
      }
      const int64_t multiplier = plan.layer_.matrix.M / geometry.in_channels;
      const int64_t bytes_of_channel = channel_bytes + saturating_product({multiplier, pixels});
      channels_at_once = std::clamp<int64_t>(kBytesAtOnce / bytes_of_channel, 1, geometry.in_channels);
      const double outputs = static_cast<double>(batch * plan.layer_.matrix.M) * static_cast<double>(pixels);
      tasks = task_count(outputs * static_cast<double>(plan.padded_taps_) / 12, kOutputsPerTask);
      buffers = std::min(tasks, BufferPool::kMost);
      if (!in_place) buffer_bytes = round_up(saturating_product({channels_at_once, channel_bytes}));
    }

    int64_t out_h = 0, out_w = 0, pixels = 0, tiles = 0;
    bool moved = false;     // each tap reads the input, or a phase of it, moved by some pixels
    bool in_place = false;  // it is the input; else there are planes
    const std::vector<Plane>* planes = nullptr;
    int64_t plane_rows = 0, plane_size = 0;
    int64_t channel_bytes = 0;  // from channel to channel
    int64_t channels_at_once = 1;
    size_t tasks = 1, buffers = 1;
    int64_t buffer_bytes = 0;
  };

  // What depends on the size of the input.
  struct Tables {
    Tables(const QuantizedDepthwisePlan& plan, const Work& work, int64_t in_h, int64_t in_w) {
      for (int64_t i = 0; i < plan.padded_taps_; ++i) {
        const int64_t index = std::min(i, plan.taps_.count() - 1);
        const Tap tap = plan.taps_.tap_of(index);
        const Shift shift = plan.taps_.shift_of(index);
        const Plane& source = work.moved ? shift.phase : tap.plane;
        const int64_t plane = work.in_place ? 0 : place_of(source, *work.planes) * work.plane_size;
        const int64_t inside = work.moved ? shift.down * work.out_w + shift.right : tap.rows * work.out_w;
        offsets.push_back(plane + inside);
        for (int64_t tile = 0; tile < work.tiles; ++tile) {
          const int64_t first = tile * plan.tile_;
          masks.push_back(work.moved ? plan.taps_.mask(index, in_h, in_w, work.out_h, work.out_w, first, plan.tile_)
                                     : ~uint64_t{0} >> (64 - std::min(plan.tile_, work.pixels - first)));
        }
      }
    }

    std::vector<int64_t> offsets;  // [padded taps]
    std::vector<uint64_t> masks;   // [padded taps, tiles]
  };

  void copy_planes(const uint8_t* from, int64_t channels, int64_t in_h, int64_t in_w, const Work& work,
                   const QuadOutput& output, uint8_t* to) const {
    for (const Plane& plane : *work.planes) {
      layer_.kernels.copy_planes({channels, from, in_h, in_w, plane.row - (work.moved ? 0 : geometry_.pads[0]),
                                  plane.column - (work.moved ? 0 : geometry_.pads[1]), geometry_.strides[0],
                                  geometry_.strides[1], output.flip, output.fill, to, work.channel_bytes, work.plane_rows,
                                  work.out_w});
      to += work.plane_size;
    }
  }

  QuadLayer layer_;
  ConvGeometry geometry_;
  ConvTaps taps_;
  int64_t tile_;  // pixels
  int64_t padded_taps_;
  std::vector<int8_t> weights_;         // [M, padded taps]
  std::vector<Plane> planes_, phases_;  // that some tap reads, in order
  int64_t reach_ = 0;                   // most rows down that a tap reads
  mutable ShapeCache<Tables> tables_;
};

}  // namespace

std::unique_ptr<QuantizedConvPlan> make_quantized_depthwise_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                                 const QuantizedKernels& kernels) {
  // Sparse groups of one channel each are not worth a form of their own.
  if (geometry.group == 1 || geometry.group != geometry.in_channels) return nullptr;
  return std::make_unique<QuantizedDepthwisePlan>(matrix, geometry, kernels);
}

}  // namespace scalpel
