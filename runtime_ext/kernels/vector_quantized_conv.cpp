// Quantized Conv on vector kernels, without im2col of the whole input: tile by tile of pixels, the inputs that some
// weight reads are laid in a buffer, each as one row of bytes, and the convolution is SpMM over their rows. Where the
// output is as wide as the input and strides are one, the pixels of a tile follow each other in the input for every
// weight, and only need those masked that lie in the padding. With larger strides the same holds for phases of the input,
// copies of every so many of its rows and columns, if they are no wider than the output. Elsewhere the input is first
// copied into planes, one for each column of the kernel and each remainder of its rows by the stride. The input of a
// pointwise convolution whose pixels fill whole tiles is read in place.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "kernels/buffer_pool.h"
#include "kernels/conv_geometry.h"
#include "kernels/conv_taps.h"
#include "kernels/parallel.h"
#include "kernels/quad_layer.h"
#include "kernels/quantized_plans.h"
#include "kernels/shape_cache.h"

namespace scalpel {
namespace {

constexpr int64_t kMostTilesAtOnce = 16;
constexpr int64_t kTilesBytes = 24 << 10;  // of tiles at once, which stay in the first cache
constexpr double kBytesPerCopyTask = 1e5;  // about 3 µs, as little as is worth another thread

class VectorQuantizedConvPlan final : public QuantizedConvPlan {
 public:
  VectorQuantizedConvPlan(const GroupCsrView& matrix, const ConvGeometry& geometry, const QuantizedKernels& kernels)
      : layer_(matrix, kernels), geometry_(geometry), taps_(geometry), tile_(4 * kernels.vector_pixels) {
    const QuadMatrix& quads = layer_.matrix;
    const int64_t row_groups = geometry.group == 1 ? quads.groups() : quads.M / geometry.group / quads.r;
    input_begin_.push_back(0);
    for (int64_t group = 0; group < geometry.group; ++group) {
      const auto first = quads.columns.begin() + quads.begin[static_cast<size_t>(group * row_groups)] * QuadMatrix::kQuad;
      const auto last =
          quads.columns.begin() + quads.begin[static_cast<size_t>((group + 1) * row_groups)] * QuadMatrix::kQuad;
      std::vector<uint32_t> used(first, last);
      std::sort(used.begin(), used.end());
      used.erase(std::unique(used.begin(), used.end()), used.end());
      for (auto column = first; column < last; ++column) {
        const auto rank = std::lower_bound(used.begin(), used.end(), *column) - used.begin();
        offsets_.push_back(static_cast<uint32_t>(rank * tile_));
      }
      inputs_.insert(inputs_.end(), used.begin(), used.end());
      input_begin_.push_back(static_cast<int64_t>(inputs_.size()));
      most_inputs_ = std::max(most_inputs_, static_cast<int64_t>(used.size()));
    }
    for (uint32_t k : inputs_) {
      const Tap tap = taps_.tap_of(k);
      planes_.push_back(tap.plane);
      reach_ = std::max(reach_, tap.rows);
      phases_.push_back(taps_.shift_of(k % taps_.count()).phase);
    }
    for (std::vector<Plane>* list : {&planes_, &phases_}) sort_unique(list);
  }

  bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const override {
    return scalpel::output_size(geometry_, in_h, in_w, out_h, out_w);
  }

  size_t workspace_bytes(int64_t batch, int64_t in_h, int64_t in_w) const override {
    const Work work(*this, batch, in_h, in_w);
    return work.total_bytes();
  }

  void run(const QuantizedInput& X, int64_t batch, int64_t in_h, int64_t in_w, void* Y,
           const QuantizedEpilogue& epilogue, void* workspace, const Parallel& parallel) const override {
    const Work work(*this, batch, in_h, in_w);
    if (batch == 0 || layer_.matrix.M == 0 || work.pixels <= 0) return;
    const auto tables = tables_.get({in_h, in_w}, [&] { return Tables(*this, work, in_h, in_w); });
    auto* memory = static_cast<uint8_t*>(workspace);
    const QuadOutput output(layer_, X, Y, epilogue, memory);
    memory += layer_.bytes();
    uint8_t* const planes = memory;
    uint8_t* const tiles = planes + work.planes_bytes;
    const bool in_place = tables->in_place_offsets.size() > 0 && output.flip == 0;
    for (int64_t image = 0; image < batch; image += work.images_at_once) {
      const int64_t images = std::min(work.images_at_once, batch - image);
      if (work.planes_bytes > 0) copy_planes(X, image, images, in_h, in_w, work, output, planes, parallel);
      Run run{*this, work, *tables, output, X, image, in_h * in_w, planes, tiles};
      const int64_t units = images * geometry_.group * work.tiles;
      if (in_place) {
        run.multiply_in_place(units, parallel);
      } else if (work.shared) {
        run.lay_then_multiply(units, parallel);
      } else {
        run.lay_and_multiply(units, parallel);
      }
    }
  }

 private:
  // How the work on an input of one size is cut, and the memory it takes.
  struct Work {
    Work(const VectorQuantizedConvPlan& plan, int64_t batch, int64_t in_h, int64_t in_w) : plan_(plan) {
      const ConvGeometry& geometry = plan.geometry_;
      scalpel::output_size(geometry, in_h, in_w, &out_h, &out_w);
      if (out_h <= 0 || out_w <= 0) return;
      pixels = saturating_product({out_h, out_w});
      tiles = (pixels + plan.tile_ - 1) / plan.tile_;
      images_at_once = std::max<int64_t>(batch, 1);
      const bool unit_strides = geometry.strides[0] == 1 && geometry.strides[1] == 1;
      in_place = unit_strides && out_w == in_w;
      moved = in_place || std::all_of(plan.phases_.begin(), plan.phases_.end(), [&](const Plane& phase) {
                return plan.taps_.phase_extent(in_w, phase.column, 1) <= out_w;
              });
      if (!in_place) {
        plane_rows = moved ? plan.taps_.phase_extent(in_h, 0, 0) : out_h + plan.reach_;
        planes = moved ? &plan.phases_ : &plan.planes_;
        plane_size = saturating_product({plane_rows, out_w}) + kMostTilePixels;
        image_size = saturating_product({geometry.in_channels, static_cast<int64_t>(planes->size()), plane_size});
        constexpr int64_t kPlanesBytes = int64_t{1} << 22;
        images_at_once = std::clamp<int64_t>(kPlanesBytes / std::max<int64_t>(image_size, 1), 1, images_at_once);
        planes_bytes = round_up(saturating_product({images_at_once, image_size}));
      }
      const double products = plan.layer_.matrix.multiply_adds() * static_cast<double>(pixels);
      const int64_t units = saturating_product({images_at_once, geometry.group, tiles});
      wanted_tasks = task_count(products * static_cast<double>(images_at_once), kProductsPerTask);
      shared = static_cast<int64_t>(wanted_tasks) > units;
      buffers = shared ? units : std::min<int64_t>(static_cast<int64_t>(wanted_tasks), BufferPool::kMost);
      tile_bytes = saturating_product({plan.most_inputs_, plan.tile_});
      tiles_at_once = shared ? 1 : std::clamp<int64_t>(kTilesBytes / std::max<int64_t>(tile_bytes, 1), 1, kMostTilesAtOnce);
      buffer_bytes = saturating_product({tiles_at_once, tile_bytes});
    }

    size_t total_bytes() const {
      const int64_t tiles_bytes = saturating_product({buffers, buffer_bytes});
      return static_cast<size_t>(plan_.layer_.bytes()) + static_cast<size_t>(planes_bytes) +
             static_cast<size_t>(tiles_bytes);
    }

    const VectorQuantizedConvPlan& plan_;
    int64_t out_h = 0, out_w = 0, pixels = 0, tiles = 0, images_at_once = 1;
    bool moved = false;     // each tap reads the input, or a phase of it, moved by some pixels
    bool in_place = false;  // it is the input; else there are planes
    const std::vector<Plane>* planes = nullptr;
    int64_t plane_rows = 0;
    bool shared = false;  // all tiles are laid before they are multiplied: there are fewer than tasks
    size_t wanted_tasks = 1;
    int64_t plane_size = 0, image_size = 0, planes_bytes = 0;
    int64_t buffers = 0, buffer_bytes = 0;
    int64_t tile_bytes = 0;
    int64_t tiles_at_once = 1;  // that are multiplied row block by row block
  };

  // What depends on the size of the input.
  struct Tables {
    Tables(const VectorQuantizedConvPlan& plan, const Work& work, int64_t in_h, int64_t in_w) {
      const ConvGeometry& geometry = plan.geometry_;
      const bool one_tap = !work.moved || plan.taps_.count() == 1;
      const int64_t channel_size =
          work.in_place ? in_h * in_w : static_cast<int64_t>(work.planes->size()) * work.plane_size;
      if (saturating_product({geometry.in_channels, channel_size}) > std::numeric_limits<uint32_t>::max()) {
        throw std::length_error("an image of more than 2^32 - 1 padded values is too large for QGroupCsrConv");
      }
      for (uint32_t k : plan.inputs_) {
        const Tap tap = plan.taps_.tap_of(k);
        const Shift shift = plan.taps_.shift_of(k % plan.taps_.count());
        if (!one_tap) taps.push_back(static_cast<uint32_t>(k % plan.taps_.count()));
        const Plane& source = work.moved ? shift.phase : tap.plane;
        const int64_t plane = work.in_place ? 0 : place_of(source, *work.planes) * work.plane_size;
        const int64_t inside = work.moved ? shift.down * work.out_w + shift.right : tap.rows * work.out_w;
        sources.push_back(tap.channel * channel_size + plane + inside);
      }
      const int64_t n_taps = one_tap ? 1 : plan.taps_.count();
      masks.resize(static_cast<size_t>(n_taps * work.tiles));
      for (int64_t tap = 0; tap < n_taps; ++tap) {
        for (int64_t tile = 0; tile < work.tiles; ++tile) {
          const int64_t first = tile * plan.tile_;
          masks[static_cast<size_t>(tap * work.tiles + tile)] =
              work.moved ? plan.taps_.mask(tap, in_h, in_w, work.out_h, work.out_w, first, plan.tile_)
                         : ~uint64_t{0} >> (64 - std::min(plan.tile_, work.pixels - first));
        }
      }
      const bool unpadded = std::all_of(geometry.pads, geometry.pads + 4, [](int64_t pad) { return pad == 0; });
      if (work.in_place && plan.taps_.count() == 1 && unpadded && work.pixels % plan.tile_ == 0) {
        for (uint32_t k : plan.layer_.matrix.columns) {
          in_place_offsets.push_back(static_cast<uint32_t>(k * static_cast<uint64_t>(channel_size)));
        }
      }
    }

    std::vector<int64_t> sources;            // [inputs]
    std::vector<uint32_t> taps;              // [inputs], or none: there is one
    std::vector<uint64_t> masks;             // [taps, tiles]
    std::vector<uint32_t> in_place_offsets;  // [steps, 4], if the input can be read in place
  };

  void copy_planes(const QuantizedInput& X, int64_t first_image, int64_t images, int64_t in_h, int64_t in_w,
                   const Work& work, const QuadOutput& output, uint8_t* to, const Parallel& parallel) const {
    const auto* from = static_cast<const uint8_t*>(X.values) + first_image * geometry_.in_channels * in_h * in_w;
    const int64_t channels = images * geometry_.in_channels, planes = static_cast<int64_t>(work.planes->size());
    const size_t tasks = task_count(static_cast<double>(images * work.image_size), kBytesPerCopyTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t first = part_begin(channels, task, tasks), last = part_begin(channels, task + 1, tasks);
      for (int64_t plane = 0; plane < planes; ++plane) {
        const Plane& p = (*work.planes)[static_cast<size_t>(plane)];
        layer_.kernels.copy_planes({last - first, from + first * in_h * in_w, in_h, in_w,
                                    p.row - (work.moved ? 0 : geometry_.pads[0]),
                                    p.column - (work.moved ? 0 : geometry_.pads[1]), geometry_.strides[0], geometry_.strides[1], output.flip,
                                    output.fill, to + (first * planes + plane) * work.plane_size, planes * work.plane_size,
                                    work.plane_rows, work.out_w});
      }
    });
  }

  // The units of some images: a unit is a tile of a group of the convolution of an image.
  struct Run {
    const VectorQuantizedConvPlan& plan;
    const Work& work;
    const Tables& tables;
    const QuadOutput& output;
    const QuantizedInput& X;
    int64_t first_image, in_pixels;
    const uint8_t* planes;
    uint8_t* tiles;

    struct Unit {
      Unit(const Run& run, int64_t i) {
        tile = i % run.work.tiles;
        group = i / run.work.tiles % run.plan.geometry_.group;
        image = i / run.work.tiles / run.plan.geometry_.group;
        first_pixel = tile * run.plan.tile_;
        pixels = std::min(run.plan.tile_, run.work.pixels - first_pixel);
      }
      int64_t image, group, tile, first_pixel, pixels;
    };

    int64_t channels_of_group() const { return plan.geometry_.in_channels / plan.geometry_.group; }
    int64_t blocks_of_group() const { return plan.layer_.matrix.blocks() / plan.geometry_.group; }

    // Rows [begin, end) of the unit's tile.
    void lay(const Unit& unit, int64_t begin, int64_t end, uint8_t* to) const {
      const int64_t first = plan.input_begin_[static_cast<size_t>(unit.group)];
      TileCall call{};
      call.fill = output.fill;
      if (work.in_place) {
        call.begin = static_cast<const uint8_t*>(X.values) + first_image * plan.geometry_.in_channels * in_pixels;
        call.from = call.begin + (unit.image * plan.geometry_.in_channels + unit.group * channels_of_group()) * in_pixels;
        call.end = call.begin + (unit.image + 1) * plan.geometry_.in_channels * in_pixels;
        call.flip = output.flip;
      } else {
        const int64_t channel_size = static_cast<int64_t>(work.planes->size()) * work.plane_size;
        call.begin = planes;
        call.from = planes + unit.image * work.image_size + unit.group * channels_of_group() * channel_size;
        call.end = planes + work.planes_bytes;
      }
      call.from += unit.first_pixel;
      call.offsets = tables.sources.data() + first + begin;
      call.taps = tables.taps.empty() ? nullptr : tables.taps.data() + first + begin;
      call.masks = tables.masks.data() + unit.tile;
      call.mask_stride = work.tiles;
      call.rows = end - begin;
      call.pixels = unit.pixels;
      call.to = to + begin * plan.tile_;
      plan.layer_.kernels.lay_tile(call);
    }

    int64_t inputs(const Unit& unit) const {
      const auto group = static_cast<size_t>(unit.group);
      return plan.input_begin_[group + 1] - plan.input_begin_[group];
    }

    // How many units from `i` on, up to `end`, are whole tiles that follow each other, if the first is one; else 1.
    int64_t at_once(int64_t i, int64_t end) const {
      const int64_t tile = i % work.tiles, whole = work.pixels / plan.tile_ - tile;
      return std::max<int64_t>(std::min({work.tiles_at_once, end - i, whole}), 1);
    }

    // `count` units from this one on.
    void multiply(const Unit& unit, int64_t count, int64_t ld_x, const uint8_t* x, const uint32_t* offsets,
                  size_t row_part, size_t row_parts) const {
      const int64_t first = unit.group * blocks_of_group(), last = first + blocks_of_group();
      const QuadMatrix& matrix = plan.layer_.matrix;
      output.multiply({x, unit.pixels, count, ld_x}, offsets, matrix.part_begin(first, last, row_part, row_parts),
                      matrix.part_begin(first, last, row_part + 1, row_parts), work.pixels,
                      (first_image + unit.image) * matrix.M * work.pixels + unit.first_pixel);
    }

    void lay_and_multiply(int64_t units, const Parallel& parallel) const {
      const auto tasks = static_cast<size_t>(std::min<int64_t>(work.buffers, units));
      BufferPool buffers(tasks);
      parallel_for(parallel, tasks, [&](size_t task) {
        const size_t buffer = buffers.take();
        uint8_t* tile = tiles + static_cast<int64_t>(buffer) * work.buffer_bytes;
        const int64_t end = part_begin(units, task + 1, tasks);
        for (int64_t i = part_begin(units, task, tasks), count; i < end; i += count) {
          const Unit unit(*this, i);
          count = at_once(i, end);
          for (int64_t j = 0; j < count; ++j) lay(Unit(*this, i + j), 0, inputs(unit), tile + j * work.tile_bytes);
          multiply(unit, count, work.tile_bytes, tile, plan.offsets_.data(), 0, 1);
        }
        buffers.give_back(buffer);
      });
    }

    void lay_then_multiply(int64_t units, const Parallel& parallel) const {
      const double bytes = static_cast<double>(units * work.tile_bytes);
      const size_t parts = (task_count(bytes, kBytesPerCopyTask) + static_cast<size_t>(units) - 1) / static_cast<size_t>(units);
      parallel_for(parallel, static_cast<size_t>(units) * parts, [&](size_t task) {
        const auto i = static_cast<int64_t>(task / parts);
        const Unit unit(*this, i);
        const int64_t rows = inputs(unit);
        lay(unit, part_begin(rows, task % parts, parts), part_begin(rows, task % parts + 1, parts),
            tiles + i * work.tile_bytes);
      });
      const size_t row_parts = (work.wanted_tasks + static_cast<size_t>(units) - 1) / static_cast<size_t>(units);
      parallel_for(parallel, static_cast<size_t>(units) * row_parts, [&](size_t task) {
        const auto i = static_cast<int64_t>(task / row_parts);
        multiply(Unit(*this, i), 1, 0, tiles + i * work.tile_bytes, plan.offsets_.data(), task % row_parts, row_parts);
      });
    }

    void multiply_in_place(int64_t units, const Parallel& parallel) const {
      const size_t row_parts = (work.wanted_tasks + static_cast<size_t>(units) - 1) / static_cast<size_t>(units);
      const size_t unit_parts = std::min(work.wanted_tasks, static_cast<size_t>(units));
      parallel_for(parallel, unit_parts * row_parts, [&](size_t task) {
        const size_t part = task / row_parts;
        const int64_t end = part_begin(units, part + 1, unit_parts);
        for (int64_t i = part_begin(units, part, unit_parts), count; i < end; i += count) {
          const Unit unit(*this, i);
          count = at_once(i, end);
          const int64_t channel = (first_image + unit.image) * plan.geometry_.in_channels + unit.group * channels_of_group();
          const uint8_t* x = static_cast<const uint8_t*>(X.values) + channel * in_pixels + unit.first_pixel;
          multiply(unit, count, plan.tile_, x, tables.in_place_offsets.data(), task % row_parts, row_parts);
        }
      });
    }
  };

  QuadLayer layer_;
  ConvGeometry geometry_;
  ConvTaps taps_;
  int64_t tile_;                      // pixels
  std::vector<uint32_t> inputs_;      // that some weight reads, k of W[m, k], by group of the convolution
  std::vector<int64_t> input_begin_;  // [groups + 1]
  std::vector<uint32_t> offsets_;     // [steps, 4] in bytes of a tile
  int64_t most_inputs_ = 0;           // of a group
  std::vector<Plane> planes_, phases_;  // that some weight reads, in order
  int64_t reach_ = 0;                 // most rows down that a weight reads
  mutable ShapeCache<Tables> tables_;
};

}  // namespace

std::unique_ptr<QuantizedConvPlan> make_vector_quantized_conv_plan(const GroupCsrView& matrix,
                                                                   const ConvGeometry& geometry,
                                                                   const QuantizedKernels& kernels) {
  return std::make_unique<VectorQuantizedConvPlan>(matrix, geometry, kernels);
}

}  // namespace scalpel
