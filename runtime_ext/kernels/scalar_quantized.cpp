// The reference of the quantized layers, compiled without contraction of a * b + c.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/conv_geometry.h"
#include "kernels/parallel.h"
#include "kernels/quantized_output.h"
#include "kernels/quantized_plans.h"
#include "kernels/scalar_matrix.h"

namespace scalpel {
namespace {

constexpr double kMultiplyAddsPerTask = 1e5;  // about 50 µs

// The arrays as they are in the file.
struct Int8Matrix {
  explicit Int8Matrix(const GroupCsrView& matrix)
      : M(matrix.M), K(matrix.K), r(matrix.r), c(matrix.c),
        row_offsets(matrix.row_offsets, matrix.row_offsets + matrix.n_row_offsets) {
    const auto* stored = static_cast<const int8_t*>(matrix.values);
    values.assign(stored, stored + matrix.n_groups * r * c);
    for (int64_t i = 0; i < matrix.n_groups; ++i) columns.push_back(column_of(matrix, i));
  }

  // Calls visit(k, w) for every stored weight w of row m, k < K, in order of k.
  template <typename Visit>
  void for_each_in_row(int64_t m, const Visit& visit) const {
    const auto block = static_cast<size_t>(m / r);
    for (int64_t g = row_offsets[block]; g < row_offsets[block + 1]; ++g) {
      const int64_t first = columns[static_cast<size_t>(g)] * c;
      const int8_t* weights = values.data() + (g * r + m % r) * c;
      for (int64_t j = 0; j < c && first + j < K; ++j) visit(first + j, int32_t{weights[j]});
    }
  }

  double weights() const { return static_cast<double>(values.size()); }

  int64_t M, K, r, c;
  std::vector<int8_t> values;        // [n_groups, r, c]
  std::vector<int32_t> row_offsets;  // [ceil(M / r) + 1]
  std::vector<int64_t> columns;      // [n_groups]
};

int32_t value_at(const QuantizedInput& X, int64_t i) {
  const int32_t value = X.is_signed ? static_cast<const int8_t*>(X.values)[i] : static_cast<const uint8_t*>(X.values)[i];
  return value - X.zero_point;
}

uint32_t bias_of(const QuantizedEpilogue& epilogue, int64_t m) {
  return epilogue.bias != nullptr ? static_cast<uint32_t>(epilogue.bias[m]) : 0;
}

class ScalarQuantizedGemmPlan final : public QuantizedGemmPlan {
 public:
  explicit ScalarQuantizedGemmPlan(const GroupCsrView& matrix) : matrix_(matrix) {}

  size_t workspace_bytes(int64_t) const override { return 0; }

  void run(const QuantizedInput& X, int64_t N, void* Y, const QuantizedEpilogue& epilogue, void*,
           const Parallel& parallel) const override {
    const int64_t M = matrix_.M, K = matrix_.K, outputs = N * M;
    const size_t tasks = task_count(matrix_.weights() * static_cast<double>(N), kMultiplyAddsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(outputs, task + 1, tasks);
      for (int64_t i = part_begin(outputs, task, tasks); i < end; ++i) {
        const int64_t m = i % M, row = i / M * K;
        uint32_t sum = bias_of(epilogue, m);
        matrix_.for_each_in_row(m, [&](int64_t k, int32_t w) { sum += static_cast<uint32_t>(w * value_at(X, row + k)); });
        store_sum(static_cast<int32_t>(sum), m, i, epilogue, Y);
      }
    });
  }

 private:
  Int8Matrix matrix_;
};

class ScalarQuantizedConvPlan final : public QuantizedConvPlan {
 public:
  ScalarQuantizedConvPlan(const GroupCsrView& matrix, const ConvGeometry& geometry)
      : matrix_(matrix), geometry_(geometry) {}

  bool output_size(int64_t in_h, int64_t in_w, int64_t* out_h, int64_t* out_w) const override {
    return scalpel::output_size(geometry_, in_h, in_w, out_h, out_w);
  }

  size_t workspace_bytes(int64_t, int64_t, int64_t) const override { return 0; }

  void run(const QuantizedInput& X, int64_t batch, int64_t in_h, int64_t in_w, void* Y,
           const QuantizedEpilogue& epilogue, void*, const Parallel& parallel) const override {
    int64_t out_h, out_w;
    if (!output_size(in_h, in_w, &out_h, &out_w)) return;
    const int64_t M = matrix_.M, outputs = batch * M * out_h * out_w;
    const double work = matrix_.weights() * static_cast<double>(batch * out_h * out_w);
    const size_t tasks = task_count(work, kMultiplyAddsPerTask);
    parallel_for(parallel, tasks, [&](size_t task) {
      const int64_t end = part_begin(outputs, task + 1, tasks);
      for (int64_t i = part_begin(outputs, task, tasks); i < end; ++i) {
        const int64_t x = i % out_w, y = i / out_w % out_h, m = i / (out_w * out_h) % M, image = i / (out_w * out_h * M);
        const uint32_t sum = bias_of(epilogue, m) + window_sum(X, image, m, y, x, in_h, in_w);
        store_sum(static_cast<int32_t>(sum), m, i, epilogue, Y);
      }
    });
  }

 private:
  uint32_t window_sum(const QuantizedInput& X, int64_t image, int64_t m, int64_t y, int64_t x, int64_t in_h,
                      int64_t in_w) const {
    const int64_t kernel_h = geometry_.kernel[0], kernel_w = geometry_.kernel[1];
    const int64_t channels = geometry_.in_channels / geometry_.group;
    const int64_t first = image * geometry_.in_channels + m / (matrix_.M / geometry_.group) * channels;
    uint32_t sum = 0;
    matrix_.for_each_in_row(m, [&](int64_t k, int32_t w) {
      const int64_t in_y = y * geometry_.strides[0] + k / kernel_w % kernel_h * geometry_.dilations[0] - geometry_.pads[0];
      const int64_t in_x = x * geometry_.strides[1] + k % kernel_w * geometry_.dilations[1] - geometry_.pads[1];
      if (in_y < 0 || in_y >= in_h || in_x < 0 || in_x >= in_w) return;
      const int64_t channel = first + k / (kernel_h * kernel_w);
      sum += static_cast<uint32_t>(w * value_at(X, (channel * in_h + in_y) * in_w + in_x));
    });
    return sum;
  }

  Int8Matrix matrix_;
  ConvGeometry geometry_;
};

}  // namespace

std::unique_ptr<QuantizedGemmPlan> make_scalar_quantized_gemm_plan(const GroupCsrView& matrix) {
  return std::make_unique<ScalarQuantizedGemmPlan>(matrix);
}

std::unique_ptr<QuantizedConvPlan> make_scalar_quantized_conv_plan(const GroupCsrView& matrix,
                                                                   const ConvGeometry& geometry) {
  return std::make_unique<ScalarQuantizedConvPlan>(matrix, geometry);
}

}  // namespace scalpel
