// Gemm on vector kernels: GEMV over the streams of the matrix for a few rows of X, SpMM over its row blocks for more.
#include <algorithm>
#include <cstring>

#include "kernels/gemv_streams.h"
#include "kernels/plans.h"
#include "kernels/row_blocks.h"
#include "kernels/shape_cache.h"
#include "kernels/spmm_grid.h"

namespace scalpel {
namespace {

constexpr int kMaxVectors = 16;            // of any kernel's tile
constexpr int kMaxLanes = 16;              // of any instruction set
constexpr int64_t kRowsAtOnce = 32;        // of the result, kept in the first cache until they are transposed
constexpr int64_t kProductFloats = 12288;  // most of them, where more rows at once are better
static_assert(kRowsAtOnce * kMaxVectors * kMaxLanes <= kProductFloats, "some rows always fit");
constexpr double kWeightsPerGemvTask = 1e5;      // about 10 µs
constexpr double kElementsPerGemvTask = 3e4;     // the same, each weight with an index of its own
constexpr double kFloatsPerTransposeTask = 3e4;  // about 4 µs
constexpr double kFloatsPerGateTask = 3e4;       // likewise

class VectorGemmPlan final : public GemmPlan {
 public:
  VectorGemmPlan(const GroupCsrView& matrix, const KernelSet& kernels)
      : kernels_(kernels),
        streams_(matrix, gemv_kernel(kernels, matrix.r, matrix.c)),
        spmm_(spmm_kernel(kernels, matrix.r)),
        blocks_(matrix, spmm_.rows),
        K_(matrix.K) {}

  size_t workspace_bytes(int64_t N) const override {
    const auto K = static_cast<size_t>(K_);
    if (N > streams_.kernel.most_rows) {
      const Panels panels(*this, N);
      return static_cast<size_t>(panels.count * panels.pitch) * K * sizeof(float);
    }
    return padded_K() == K_ ? 0 : static_cast<size_t>(N * padded_K()) * sizeof(float);
  }

  void run(const float* X, int64_t N, float* Y, const Epilogue& epilogue, void* workspace,
           const Parallel& parallel) const override {
    if (N == 0 || streams_.M == 0) return;
    if (N > streams_.kernel.most_rows) {
      run_spmm(X, N, Y, epilogue, static_cast<float*>(workspace), parallel);
    } else {
      run_gemv(X, N, Y, epilogue, static_cast<float*>(workspace), parallel);
    }
  }

 private:
  // X transposed, in panels as wide as a tile: [count][K][pitch].
  struct Panels {
    Panels(const VectorGemmPlan& plan, int64_t N) {
      const int64_t lanes = plan.kernels_.lanes, most = plan.spmm_.max_vectors;
      vectors = (N + lanes - 1) / lanes;
      count = (vectors + most - 1) / most;
      pitch = (vectors + count - 1) / count * lanes;
    }
    int64_t vectors, count, pitch;

    int64_t first_vector(int64_t panel) const {
      return part_begin(vectors, static_cast<size_t>(panel), static_cast<size_t>(count));
    }
  };

  // What x is padded to for kernels that read whole items.
  int64_t padded_K() const {
    const int64_t width = streams_.kernel.layout == GemvLayout::kRowVectors ? streams_.kernel.width : 1;
    return (K_ + width - 1) / width * width;
  }

  void run_gemv(const float* X, int64_t N, float* Y, const Epilogue& epilogue, float* workspace,
                const Parallel& parallel) const {
    const int64_t ldx = padded_K();
    if (ldx != K_) {
      for (int64_t n = 0; n < N; ++n) {
        std::copy_n(X + n * K_, K_, workspace + n * ldx);
        std::fill_n(workspace + n * ldx + K_, ldx - K_, 0.0f);
      }
      X = workspace;
    }
    const double weights_per_task =
        streams_.kernel.layout == GemvLayout::kElements ? kElementsPerGemvTask : kWeightsPerGemvTask;
    const size_t tasks =
        task_count(static_cast<double>(streams_.weights()) * static_cast<double>(N), weights_per_task);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t first = streams_.part_begin(task, tasks), last = streams_.part_begin(task + 1, tasks);
      for (int64_t n = 0; n < N; ++n) {
        Epilogue row = epilogue;
        if (row.residual != nullptr) row.residual += n * streams_.M;
        streams_.run(X + n * ldx, Y + n * streams_.M, row, first, last);
      }
    });
    if (epilogue.gate != Gate::kNone) gate(epilogue.gate, Y, N * streams_.M, parallel);
  }

  // The rows of a slice of streams are not next to each other, so that this comes after all of them.
  void gate(Gate gate, float* Y, int64_t count, const Parallel& parallel) const {
    const size_t tasks = task_count(static_cast<double>(count), kFloatsPerGateTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t first = part_begin(count, task, tasks);
      kernels_.gate({gate, Y + first, 1, part_begin(count, task + 1, tasks) - first, 0});
    });
  }

  void run_spmm(const float* X, int64_t N, float* Y, const Epilogue& epilogue, float* workspace,
                const Parallel& parallel) const {
    const Panels panels(*this, N);
    transpose_x(X, N, panels, workspace, parallel);
    const auto offsets = offsets_.get({panels.pitch, 0}, [&] {
      std::vector<uint32_t> table;
      table.reserve(blocks_.columns.size() + kStepsAhead);
      for (uint32_t k : blocks_.columns) table.push_back(k * static_cast<uint32_t>(panels.pitch));
      table.resize(table.size() + kStepsAhead);
      return table;
    });
    const SpmmGrid grid(blocks_, panels.count, static_cast<double>(panels.vectors * kernels_.lanes),
                        static_cast<double>(panels.count * panels.pitch * K_) * sizeof(float));
    parallel_for(parallel, grid.tasks(), [&](size_t task) {
      const size_t row_part = task % grid.row_parts, pixel_part = task / grid.row_parts;
      const int64_t first_block = aligned_part_begin(row_part, grid.row_parts);
      const int64_t last_block = aligned_part_begin(row_part + 1, grid.row_parts);
      const int64_t last_panel = part_begin(panels.count, pixel_part + 1, grid.pixel_parts);
      for (int64_t p = part_begin(panels.count, pixel_part, grid.pixel_parts); p < last_panel; ++p) {
        multiply_panel(panels, p, workspace, offsets->data(), first_block, last_block, N, Y, epilogue);
      }
    });
  }

  // As RowBlocks::part_begin, but parts begin where a cache line of the result does.
  int64_t aligned_part_begin(size_t i, size_t parts) const {
    constexpr int64_t kRowsOfLine = 16;
    const int64_t blocks_of_line = std::max<int64_t>(kRowsOfLine / blocks_.rows, 1);
    const int64_t block = blocks_.part_begin(i, parts);
    return i == parts ? block : block / blocks_of_line * blocks_of_line;
  }

  void transpose_x(const float* X, int64_t N, const Panels& panels, float* workspace, const Parallel& parallel) const {
    const size_t tasks = task_count(static_cast<double>(N) * static_cast<double>(K_), kFloatsPerTransposeTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t k = part_begin(K_, task, tasks), columns = part_begin(K_, task + 1, tasks) - k;
      for (int64_t p = 0; p < panels.count; ++p) {
        const int64_t first = panels.first_vector(p) * kernels_.lanes;
        const int64_t rows = std::min(panels.first_vector(p + 1) * kernels_.lanes, N) - first;
        float* panel = workspace + (p * K_ + k) * panels.pitch;
        TransposeCall call{X + first * K_ + k, rows, columns, K_, panel, panels.pitch, nullptr, no_limit.min,
                           no_limit.max};
        kernels_.transpose(call);
      }
    });
  }

  void multiply_panel(const Panels& panels, int64_t p, const float* workspace, const uint32_t* offsets,
                      int64_t first_block, int64_t last_block, int64_t N, float* Y, const Epilogue& epilogue) const {
    alignas(64) float product[kProductFloats];
    const int64_t vectors = panels.first_vector(p + 1) - panels.first_vector(p);
    const int64_t first_n = panels.first_vector(p) * kernels_.lanes;
    const int64_t columns = std::min(vectors * kernels_.lanes, N - first_n);
    const int64_t rows_at_once =
        blocks_.M % kConflictingFloats == 0
            ? std::min(kProductFloats / panels.pitch / kRowsAtOnce * kRowsAtOnce, kMostRowsByRow)
            : kRowsAtOnce;
    const int64_t blocks_at_once = rows_at_once / blocks_.rows;
    for (int64_t block = first_block; block < last_block; block += blocks_at_once) {
      const int64_t row = block * blocks_.rows;
      SpmmCall call{};
      call.group_begin = blocks_.begin.data();
      call.weights = blocks_.weights.data();
      call.offsets = offsets;
      call.r = blocks_.r;
      call.block_begin = block;
      call.block_end = std::min(block + blocks_at_once, last_block);
      call.rows = blocks_.M - row;
      call.X = workspace + p * K_ * panels.pitch;
      call.pixels = columns;
      call.Y = product;
      call.ldy = panels.pitch;
      call.bias = epilogue.bias != nullptr ? epilogue.bias + row : nullptr;
      call.min = no_limit.min;
      call.max = no_limit.max;
      spmm_.run(call);
      const int64_t at = first_n * blocks_.M + row;
      TransposeCall back{product,
                         std::min(rows_at_once, std::min(last_block * blocks_.rows, blocks_.M) - row),
                         columns,
                         panels.pitch,
                         Y + at,
                         blocks_.M,
                         epilogue.residual != nullptr ? epilogue.residual + at : nullptr,
                         epilogue.min,
                         epilogue.max};
      kernels_.transpose(back);
      kernels_.gate({epilogue.gate, back.to, back.columns, back.rows, back.ld_to});
    }
  }

  static constexpr Epilogue no_limit{};

  const KernelSet& kernels_;
  GemvStreams streams_;
  const SpmmKernel& spmm_;
  RowBlocks blocks_;
  int64_t K_;
  mutable ShapeCache<std::vector<uint32_t>> offsets_;
};

}  // namespace

std::unique_ptr<GemmPlan> make_vector_gemm_plan(const GroupCsrView& matrix, const KernelSet& kernels) {
  return std::make_unique<VectorGemmPlan>(matrix, kernels);
}

}  // namespace scalpel
