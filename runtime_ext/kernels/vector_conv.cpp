// Conv on vector kernels, without im2col: the input is copied once into planes, one for each column of the kernel and
// each remainder of its rows by the stride, with padding, at the width of the output. In a plane the inputs of all
// outputs for a weight follow each other, so that each weight is one offset into the planes and the convolution is
// SpMM over a table of offsets. The planes of a large picture are made and multiplied band by band. The input of a
// pointwise convolution is read in place, unless it pays to align it.
#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "kernels/buffer_pool.h"
#include "kernels/conv_geometry.h"
#include "kernels/plans.h"
#include "kernels/row_blocks.h"
#include "kernels/shape_cache.h"
#include "kernels/spmm_grid.h"

namespace scalpel {
namespace {

constexpr double kFloatsPerCopyTask = 4e4;  // about 3 µs, as little as is worth another thread

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
      planes_.push_back(tap.plane);
      reach_ = std::max(reach_, tap.rows);
    }
    std::sort(planes_.begin(), planes_.end());
    planes_.erase(std::unique(planes_.begin(), planes_.end()), planes_.end());
  }

  bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const override {
    return scalpel::output_size(geometry_, in_h, in_w, out_h, out_w);
  }

  size_t workspace_bytes(int64_t batch, int64_t in_h, int64_t in_w) const override {
    const Layout layout(*this, in_h, in_w);
    if (!layout.copied) return 0;
    const int64_t copies = layout.bands > 1 ? static_cast<int64_t>(band_tasks(batch, layout)) : images_at_once(batch, layout);
    return saturating_product({copies, image_size(layout), sizeof(float)});
  }

  void run(const float* X, int64_t batch, int64_t in_h, int64_t in_w, float* Y, const Epilogue& epilogue,
           void* workspace, const Parallel& parallel) const override {
    const Layout layout(*this, in_h, in_w);
    if (batch == 0 || blocks_.M == 0 || layout.out_h <= 0 || layout.out_w <= 0) return;
    const auto tables = tables_.get({in_h, in_w}, [&] { return Tables{make_offsets(layout), make_inside(layout, in_h, in_w)}; });
    if (layout.bands > 1) {
      return run_bands(X, batch, in_h, in_w, layout, *tables, Y, epilogue, static_cast<float*>(workspace), parallel);
    }
    const int64_t at_once = layout.copied ? images_at_once(batch, layout) : batch;
    for (int64_t image = 0; image < batch; image += at_once) {
      const int64_t images = std::min(at_once, batch - image), out = image * blocks_.M * layout.out_h * layout.out_w;
      const float* from = X + image * geometry_.in_channels * in_h * in_w;
      if (layout.copied) {
        copy_input(from, images, in_h, in_w, layout, tables->inside, static_cast<float*>(workspace), parallel);
        from = static_cast<const float*>(workspace);
      }
      Epilogue part = epilogue;
      if (part.residual != nullptr) part.residual += out;
      multiply(from, images, layout, tables->offsets.data(), Y + out, part, parallel);
    }
  }

 private:
  struct Layout;
  struct Tables;

  // Floats of the planes of an image, or of a band of it.
  int64_t image_size(const Layout& layout) const {
    return static_cast<int64_t>(saturating_product({geometry_.in_channels, layout.channel_size}));
  }

  // Images whose planes are made before they are multiplied: more than a few would only take memory.
  int64_t images_at_once(int64_t batch, const Layout& layout) const {
    constexpr int64_t kFloats = int64_t{1} << 20;
    return std::clamp<int64_t>(kFloats / std::max<int64_t>(image_size(layout), 1), 1, std::max<int64_t>(batch, 1));
  }

  void multiply(const float* X, int64_t batch, const Layout& layout, const uint32_t* offsets, float* Y,
                const Epilogue& epilogue, const Parallel& parallel) const {
    const int64_t pixels = layout.out_h * layout.out_w, size = image_size(layout);
    const int64_t vectors = (pixels + kernels_.lanes - 1) / kernels_.lanes;
    const int64_t panel = panel_vectors();
    int64_t panels = (vectors + panel - 1) / panel;
    const SpmmGrid grid(blocks_, batch * panels, static_cast<double>(batch * vectors * kernels_.lanes),
                        static_cast<double>(batch * size) * sizeof(float));
    // As many panels in each part.
    const auto parts = static_cast<int64_t>(grid.pixel_parts);
    const int64_t multiple = parts / std::gcd(parts, batch);
    panels = std::min((panels + multiple - 1) / multiple * multiple, vectors);
    parallel_for(parallel, grid.tasks(), [&](size_t task) {
      const size_t row_part = task % grid.row_parts, pixel_part = task / grid.row_parts;
      SpmmCall call = make_call(row_part, grid.row_parts, offsets, pixels, epilogue);
      const int64_t row = call.block_begin * blocks_.rows;
      const int64_t last = part_begin(batch * panels, pixel_part + 1, grid.pixel_parts);
      for (int64_t i = part_begin(batch * panels, pixel_part, grid.pixel_parts); i < last; ++i) {
        const int64_t image = i / panels;
        const auto panel_index = static_cast<size_t>(i % panels);
        const int64_t first = part_begin(vectors, panel_index, static_cast<size_t>(panels)) * kernels_.lanes;
        const int64_t end = part_begin(vectors, panel_index + 1, static_cast<size_t>(panels)) * kernels_.lanes;
        const int64_t out = (image * blocks_.M + row) * pixels + first;
        call.X = X + image * size + first;
        call.pixels = std::min(end, pixels) - first;
        call.Y = Y + out;
        call.residual = epilogue.residual != nullptr ? epilogue.residual + out : nullptr;
        run_spmm(call, epilogue.gate);
      }
    });
  }

  SpmmCall make_call(size_t row_part, size_t row_parts, const uint32_t* offsets, int64_t pixels,
                     const Epilogue& epilogue) const {
    SpmmCall call{};
    call.group_begin = blocks_.begin.data();
    call.weights = blocks_.weights.data();
    call.offsets = offsets;
    call.r = blocks_.r;
    call.block_begin = blocks_.part_begin(row_part, row_parts);
    call.block_end = blocks_.part_begin(row_part + 1, row_parts);
    call.ldy = pixels;
    call.min = epilogue.min;
    call.max = epilogue.max;
    const int64_t row = call.block_begin * blocks_.rows;
    call.rows = blocks_.M - row;
    if (epilogue.bias != nullptr) call.bias = epilogue.bias + row;
    return call;
  }

  void run_spmm(const SpmmCall& call, Gate gate) const {
    spmm_.run(call);
    const int64_t rows = std::min((call.block_end - call.block_begin) * blocks_.rows, call.rows);
    kernels_.gate({gate, call.Y, rows, call.pixels, call.ldy});
  }

  size_t band_tasks(int64_t batch, const Layout& layout) const {
    const double pixels =
        static_cast<double>(batch) * static_cast<double>(layout.out_h) * static_cast<double>(layout.out_w);
    const size_t wanted = task_count(blocks_.multiply_adds() * pixels, SpmmGrid::kMultiplyAddsPerTask);
    return std::min({wanted, saturating_product({batch, layout.bands}), size_t{BufferPool::kMost}});
  }

  // A band is copied right before it is multiplied, by the same task, and does not leave the second cache in between.
  void run_bands(const float* X, int64_t batch, int64_t in_h, int64_t in_w, const Layout& layout, const Tables& tables,
                 float* Y, const Epilogue& epilogue, float* workspace, const Parallel& parallel) const {
    const int64_t pixels = layout.out_h * layout.out_w, size = image_size(layout), items = batch * layout.bands;
    const size_t tasks = band_tasks(batch, layout);
    BufferPool buffers(tasks);
    parallel_for(parallel, tasks, [&](size_t task) {
      const size_t buffer = buffers.take();
      float* planes = workspace + static_cast<int64_t>(buffer) * size;
      SpmmCall call = make_call(0, 1, tables.offsets.data(), pixels, epilogue);
      for (int64_t i = part_begin(items, task, tasks); i < part_begin(items, task + 1, tasks); ++i) {
        const int64_t image = i / layout.bands, top = i % layout.bands * layout.band_h;
        const int64_t rows = std::min(layout.band_h, layout.out_h - top), first_channel = image * geometry_.in_channels;
        for (int64_t channel = 0; channel < geometry_.in_channels; ++channel) {
          copy_channel(X + (first_channel + channel) * in_h * in_w, in_h, in_w, layout, tables.inside, top, rows,
                       planes + channel * layout.channel_size);
        }
        const int64_t band_pixels = rows * layout.out_w, vectors = (band_pixels + kernels_.lanes - 1) / kernels_.lanes;
        const int64_t panels = (vectors + panel_vectors() - 1) / panel_vectors();
        for (int64_t panel = 0; panel < panels; ++panel) {
          const auto number = static_cast<size_t>(panel), count = static_cast<size_t>(panels);
          const int64_t first = part_begin(vectors, number, count) * kernels_.lanes;
          const int64_t out = image * blocks_.M * pixels + top * layout.out_w + first;
          call.X = planes + first;
          call.pixels = std::min(part_begin(vectors, number + 1, count) * kernels_.lanes, band_pixels) - first;
          call.Y = Y + out;
          call.residual = epilogue.residual != nullptr ? epilogue.residual + out : nullptr;
          run_spmm(call, epilogue.gate);
        }
      }
      buffers.give_back(buffer);
    });
  }

  // A copy of the input: its rows from `row` on in steps of the stride, moved left by `column`.
  struct Plane {
    int64_t row, column;
    bool operator<(const Plane& other) const { return row != other.row ? row < other.row : column < other.column; }
    bool operator==(const Plane& other) const { return row == other.row && column == other.column; }
  };

  // Where a weight reads: channel of the image, plane of the channel, rows down in it.
  struct Tap {
    int64_t channel;
    Plane plane;
    int64_t rows;
  };

  Tap tap_of(int64_t k) const {
    const int64_t kernel_h = geometry_.kernel[0], kernel_w = geometry_.kernel[1], stride = geometry_.strides[0];
    const int64_t y = k / kernel_w % kernel_h * geometry_.dilations[0], x = k % kernel_w * geometry_.dilations[1];
    return {k / (kernel_h * kernel_w), {y % stride, x}, y / stride};
  }

  // Whether a row block is so low that it loads activations about as fast as it can. Those had better be aligned: a
  // vector that lies in two cache lines counts as two loads.
  bool bound_by_loads() const { return spmm_.rows < 4; }

  // Whether the copy that aligns the input pays: each vector of it is loaded often enough.
  bool worth_aligning() const {
    constexpr int64_t kLoadsPerCopy = 12;
    return bound_by_loads() && static_cast<int64_t>(blocks_.columns.size()) >= kLoadsPerCopy * geometry_.in_channels;
  }

  // Vectors of pixels that a row block passes over before the next one does: as many whole tiles as keep the input
  // they read in the second cache, or in the first one where few rows share what is read.
  int64_t panel_vectors() const {
    const int64_t panel_floats = bound_by_loads() ? 8192 : 32768;
    const int64_t planes = geometry_.in_channels / geometry_.group * static_cast<int64_t>(planes_.size());
    const int64_t tile = kernels_.lanes * spmm_.max_vectors;
    return std::max<int64_t>(panel_floats / std::max<int64_t>(planes, 1) / tile, 1) * spmm_.max_vectors;
  }

  // What depends on the size of the input.
  struct Tables {
    std::vector<uint32_t> offsets;
    std::vector<uint16_t> inside;
  };

  // The input of one size as the kernels see it.
  struct Layout {
    Layout(const VectorConvPlan& plan, int64_t in_h, int64_t in_w) {
      const ConvGeometry& geometry = plan.geometry_;
      scalpel::output_size(geometry, in_h, in_w, &out_h, &out_w);
      const bool unpadded = std::all_of(geometry.pads, geometry.pads + 4, [](int64_t pad) { return pad == 0; });
      const bool aligned = in_h * in_w % plan.kernels_.lanes == 0;
      copied = !unpadded || geometry.strides[0] != 1 || geometry.strides[1] != 1 || out_w != in_w ||
               (!aligned && plan.worth_aligning());
      if (!copied) {
        channel_size = in_h * in_w;
        return;
      }
      // Bands begin with a whole vector of the output.
      const int64_t lanes = plan.kernels_.lanes;
      const auto planes = static_cast<int64_t>(plan.planes_.size());
      const auto row = static_cast<int64_t>(saturating_product({geometry.in_channels, planes, out_w}));
      const int64_t unit = lanes / std::gcd(lanes, std::max<int64_t>(out_w, 1));
      band_h = out_h;
      if (out_h > 0 && row > 0 && out_h + plan.reach_ > kMostFloats / row) {
        const int64_t rows = std::max<int64_t>(kBandFloats / row - plan.reach_, 4 * (plan.reach_ + 1));
        band_h = std::min((rows + unit - 1) / unit * unit, out_h);
        bands = (out_h + band_h - 1) / band_h;
      }
      // Planes begin with whole vectors.
      const auto values = static_cast<int64_t>(saturating_product({band_h + plan.reach_, out_w}));
      plane_size = static_cast<int64_t>(saturating_product({(values - 1) / lanes + 1, lanes}));
      channel_size = static_cast<int64_t>(saturating_product({planes, plane_size}));
    }
    // Planes of more floats are made and multiplied in bands of rows of the output, each of which fits a quarter of the
    // second cache, unless that makes them so low that rows are mostly copied for their neighbours.
    static constexpr int64_t kMostFloats = int64_t{1} << 20, kBandFloats = int64_t{1} << 16;

    int64_t out_h, out_w;
    bool copied;
    int64_t band_h = 0, bands = 1;  // rows of the output
    int64_t plane_size = 0, channel_size;
  };

  std::vector<uint32_t> make_offsets(const Layout& layout) const {
    if (image_size(layout) > std::numeric_limits<uint32_t>::max()) {
      throw std::length_error("an image of more than 2^32 - 1 padded values is too large for GroupCsrConv");
    }
    std::vector<uint32_t> offsets;
    offsets.reserve(blocks_.columns.size() + kStepsAhead);
    const int64_t groups_of_conv_group = blocks_.M / geometry_.group / blocks_.r;
    for (size_t group = 0; group + 1 < blocks_.begin.size(); ++group) {
      const int64_t conv_group = geometry_.group == 1 ? 0 : static_cast<int64_t>(group) / groups_of_conv_group;
      const int64_t first_channel = conv_group * (geometry_.in_channels / geometry_.group);
      for (int64_t step = blocks_.begin[group]; step < blocks_.begin[group + 1]; ++step) {
        const Tap tap = tap_of(blocks_.columns[static_cast<size_t>(step)]);
        const int64_t plane = std::lower_bound(planes_.begin(), planes_.end(), tap.plane) - planes_.begin();
        offsets.push_back(static_cast<uint32_t>((first_channel + tap.channel) * layout.channel_size +
                                                plane * layout.plane_size + tap.rows * layout.out_w));
      }
    }
    offsets.resize(offsets.size() + kStepsAhead);
    return offsets;
  }

  // For planes that are the input moved: which lanes of each vector of each plane lie inside it.
  std::vector<uint16_t> make_inside(const Layout& layout, int64_t in_h, int64_t in_w) const {
    std::vector<uint16_t> inside;
    if (!layout.copied || geometry_.strides[0] != 1 || geometry_.strides[1] != 1 || layout.out_w != in_w) return inside;
    const int64_t lanes = kernels_.lanes;
    inside.resize(planes_.size() * inside_vectors(layout));
    size_t first = 0;
    for (const Plane& plane : planes_) {
      for (int64_t i = 0; i < (layout.out_h + reach_) * in_w; ++i) {
        const int64_t y = i / in_w + plane.row - geometry_.pads[0], x = i % in_w + plane.column - geometry_.pads[1];
        const bool is_inside = y >= 0 && y < in_h && x >= 0 && x < in_w;
        inside[first + static_cast<size_t>(i / lanes)] |= static_cast<uint16_t>(is_inside << (i % lanes));
      }
      first += inside_vectors(layout);
    }
    return inside;
  }

  // Of a plane of all rows.
  size_t inside_vectors(const Layout& layout) const {
    return static_cast<size_t>(((layout.out_h + reach_) * layout.out_w + kernels_.lanes - 1) / kernels_.lanes);
  }

  void copy_input(const float* X, int64_t batch, int64_t in_h, int64_t in_w, const Layout& layout,
                  const std::vector<uint16_t>& inside, float* workspace, const Parallel& parallel) const {
    const int64_t channels = batch * geometry_.in_channels;
    const size_t tasks = task_count(static_cast<double>(channels * layout.channel_size), kFloatsPerCopyTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(channels, task + 1, tasks);
      for (int64_t channel = part_begin(channels, task, tasks); channel < end; ++channel) {
        copy_channel(X + channel * in_h * in_w, in_h, in_w, layout, inside, 0, layout.out_h,
                     workspace + channel * layout.channel_size);
      }
    });
  }

  // The planes of a channel for `rows` rows of the output from row `top` on.
  void copy_channel(const float* from, int64_t in_h, int64_t in_w, const Layout& layout,
                    const std::vector<uint16_t>& inside, int64_t top, int64_t rows, float* to) const {
    const uint16_t* plane_inside = inside.empty() ? nullptr : inside.data() + top * layout.out_w / kernels_.lanes;
    for (const Plane& plane : planes_) {
      kernels_.copy_plane({from, in_h, in_w, plane.row - geometry_.pads[0] + top * geometry_.strides[0],
                           plane.column - geometry_.pads[1], geometry_.strides[0], geometry_.strides[1], to,
                           rows + reach_, layout.out_w, plane_inside});
      to += layout.plane_size;
      if (plane_inside != nullptr) plane_inside += inside_vectors(layout);
    }
  }

  const KernelSet& kernels_;
  const SpmmKernel& spmm_;
  RowBlocks blocks_;
  ConvGeometry geometry_;
  std::vector<Plane> planes_;  // that some weight reads, in order
  int64_t reach_ = 0;          // most rows down that a weight reads
  mutable ShapeCache<Tables> tables_;
};

}  // namespace

std::unique_ptr<ConvPlan> make_vector_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                const KernelSet& kernels) {
  return std::make_unique<VectorConvPlan>(matrix, geometry, kernels);
}

}  // namespace scalpel
