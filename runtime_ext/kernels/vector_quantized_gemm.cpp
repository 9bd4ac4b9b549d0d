// Quantized Gemm on vector kernels: row by row of X for a few rows, which reads the weights once for each; for more of
// them tile by tile, a tile being up to as many rows of X as a convolution's has pixels, transposed.
#include <algorithm>

#include "kernels/buffer_pool.h"
#include "kernels/parallel.h"
#include "kernels/quad_layer.h"
#include "kernels/quantized_plans.h"

namespace scalpel {
namespace {

constexpr int64_t kMostGemvRows = 3;           // of X
constexpr double kWeightsPerGemvTask = 2.5e5;  // about 10 µs
constexpr double kBytesPerTransposeTask = 1e5;

class VectorQuantizedGemmPlan final : public QuantizedGemmPlan {
 public:
  VectorQuantizedGemmPlan(const GroupCsrView& matrix, const QuantizedKernels& kernels)
      : layer_(matrix, kernels), tile_(4 * kernels.vector_pixels) {
    const std::vector<uint32_t>& columns = layer_.matrix.columns;
    offsets_.reserve(columns.size());
    for (uint32_t k : columns) offsets_.push_back(k * static_cast<uint32_t>(tile_));
    if (matrix.K <= UINT16_MAX + 1) narrow_columns_.assign(columns.begin(), columns.end());
  }

  size_t workspace_bytes(int64_t N) const override {
    const int64_t K = layer_.matrix.K, sums = layer_.padded_rows() * static_cast<int64_t>(sizeof(int32_t));
    const int64_t own = N <= kMostGemvRows ? round_up(saturating_product({N, K})) + saturating_product({N, sums})
                                           : saturating_product({tiles(N), K, tile_});
    return static_cast<size_t>(layer_.bytes()) + static_cast<size_t>(own);
  }

  void run(const QuantizedInput& X, int64_t N, void* Y, const QuantizedEpilogue& epilogue, void* workspace,
           const Parallel& parallel) const override {
    if (N == 0 || layer_.matrix.M == 0) return;
    auto* memory = static_cast<uint8_t*>(workspace);
    const QuadOutput output(layer_, X, Y, epilogue, memory);
    memory += layer_.bytes();
    if (N <= kMostGemvRows) {
      run_gemv(static_cast<const uint8_t*>(X.values), N, output, memory, parallel);
    } else {
      run_spmm(static_cast<const uint8_t*>(X.values), N, output, memory, parallel);
    }
  }

 private:
  int64_t tiles(int64_t N) const { return (N + tile_ - 1) / tile_; }

  void run_gemv(const uint8_t* x, int64_t N, const QuadOutput& output, uint8_t* memory, const Parallel& parallel) const {
    const QuadMatrix& matrix = layer_.matrix;
    auto* sums = reinterpret_cast<int32_t*>(memory + round_up(N * matrix.K));
    if (output.flip != 0) {
      std::transform(x, x + N * matrix.K, memory, [&](uint8_t v) { return static_cast<uint8_t>(v ^ output.flip); });
      x = memory;
    }
    const size_t tasks = task_count(matrix.multiply_adds() * static_cast<double>(N), kWeightsPerGemvTask);
    const uint16_t* columns = narrow_columns_.empty() ? nullptr : narrow_columns_.data();
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t first = matrix.part_begin(0, matrix.blocks(), task, tasks);
      const int64_t last = matrix.part_begin(0, matrix.blocks(), task + 1, tasks);
      for (int64_t n = 0; n < N; ++n) {
        output.multiply_vector(x + n * matrix.K, columns, first, last, n * matrix.M, sums + n * layer_.padded_rows());
      }
    });
  }

  void run_spmm(const uint8_t* X, int64_t N, const QuadOutput& output, uint8_t* memory, const Parallel& parallel) const {
    const QuadMatrix& matrix = layer_.matrix;
    const int64_t K = matrix.K, units = tiles(N);
    const size_t parts = task_count(static_cast<double>(N * K), kBytesPerTransposeTask);
    parallel_for(parallel, parts, [&](size_t part) {
      const int64_t k = part_begin(K, part, parts), columns = part_begin(K, part + 1, parts) - k;
      for (int64_t tile = 0; tile < units; ++tile) {
        const int64_t first = tile * tile_, pixels = std::min(tile_, N - first);
        lay(X + first * K + k, pixels, columns, output.flip, memory + (tile * K + k) * tile_);
      }
    });
    const double products = matrix.multiply_adds() * static_cast<double>(N);
    const size_t tasks = task_count(products, kProductsPerTask), unit_parts = std::min(tasks, static_cast<size_t>(units));
    const size_t row_parts = (tasks + unit_parts - 1) / unit_parts;
    parallel_for(parallel, unit_parts * row_parts, [&](size_t task) {
      const int64_t first = matrix.part_begin(0, matrix.blocks(), task % row_parts, row_parts);
      const int64_t last = matrix.part_begin(0, matrix.blocks(), task % row_parts + 1, row_parts);
      const int64_t end = part_begin(units, task / row_parts + 1, unit_parts);
      for (int64_t tile = part_begin(units, task / row_parts, unit_parts); tile < end; ++tile) {
        const int64_t n = tile * tile_;
        output.multiply_transposed(memory + tile * K * tile_, offsets_.data(), std::min(tile_, N - n), first, last,
                                   n * matrix.M);
      }
    });
  }

  // Rows of X as a tile: its quarters, of 16 bytes each, hold as many rows each.
  void lay(const uint8_t* X, int64_t pixels, int64_t columns, uint8_t flip, uint8_t* to) const {
    const int64_t lanes = layer_.kernels.vector_pixels, in_quarter = (pixels + lanes - 1) / lanes * 4;
    for (int64_t first = 0, at = 0; at < tile_; first += in_quarter, at += 16) {
      const int64_t rows = std::clamp<int64_t>(pixels - first, 0, in_quarter);
      layer_.kernels.transpose_bytes({X + first * layer_.matrix.K, rows, columns, layer_.matrix.K, to + at, tile_, 16, flip});
    }
  }

  QuadLayer layer_;
  int64_t tile_;                          // rows of X
  std::vector<uint32_t> offsets_;         // [steps, 4] in bytes of a tile
  std::vector<uint16_t> narrow_columns_;  // of the matrix, where they fit
};

}  // namespace

std::unique_ptr<QuantizedGemmPlan> make_vector_quantized_gemm_plan(const GroupCsrView& matrix,
                                                                   const QuantizedKernels& kernels) {
  return std::make_unique<VectorQuantizedGemmPlan>(matrix, kernels);
}

}  // namespace scalpel
