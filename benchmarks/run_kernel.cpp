// Runs one layer a number of times, for counting instructions (benchmarks/instructions.py):
//   run_kernel ISA R C DENSITY RUNS gemm M K N
//   run_kernel ISA R C DENSITY RUNS conv M CHANNELS KERNEL STRIDE GROUP SIZE
//   run_kernel SET R C DENSITY RUNS quantized_gemm M K N, of uint8 in and out; likewise quantized_conv
// Prints the multiply-adds by stored weights in a run.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bindings/workspace.h"
#include "dispatch/kernel_sets.h"
#include "kernels/interface.h"

namespace {

using namespace scalpel;

// Groups that are stored anywhere, as many in all as the density says.
struct Matrix {
  Matrix(int64_t M, int64_t K, int64_t r, int64_t c, double density) {
    std::mt19937 rng(1);
    std::bernoulli_distribution stored(density);
    for (int64_t block = 0; block < (M + r - 1) / r; ++block) {
      for (int64_t column = 0; column < (K + c - 1) / c; ++column) {
        if (stored(rng)) columns.push_back(static_cast<int32_t>(column));
      }
      row_offsets.push_back(static_cast<int32_t>(columns.size()));
    }
    values.assign(columns.size() * static_cast<size_t>(r * c), 0.5f);
    view.M = M;
    view.K = K;
    view.r = r;
    view.c = c;
    view.values = values.data();
    view.n_groups = static_cast<int64_t>(columns.size());
    view.row_offsets = row_offsets.data();
    view.n_row_offsets = static_cast<int64_t>(row_offsets.size());
    view.columns_i32 = columns.data();
  }

  std::vector<float> values;
  std::vector<int32_t> row_offsets{0}, columns;
  GroupCsrView view;
};

[[noreturn]] void cannot_run(const char* name) {
  std::fprintf(stderr, "%s cannot run here\n", name);
  std::exit(1);
}

Isa isa_from_name(const char* name) {
  for (Isa isa : available_isas()) {
    if (std::strcmp(name, isa_name(isa)) == 0) return isa;
  }
  cannot_run(name);
}

const QuantizedKernels* quantized_kernels_from_name(const char* name) {
  for (const QuantizedKernels* kernels : available_quantized_kernels()) {
    if (std::strcmp(name, kernels->name) == 0) return kernels;
  }
  cannot_run(name);
}

std::vector<float> ones(int64_t size) { return std::vector<float>(static_cast<size_t>(size), 1.0f); }

struct Gemm {
  explicit Gemm(const std::vector<int64_t>& sizes) : M(sizes.at(0)), K(sizes.at(1)), N(sizes.at(2)) {}
  int64_t M, K, N;
};

struct Conv {
  explicit Conv(const std::vector<int64_t>& sizes)
      : M(sizes.at(0)), C(sizes.at(1)), kernel(sizes.at(2)), size(sizes.at(5)),
        geometry{C, sizes.at(4), {kernel, kernel}, {sizes.at(3), sizes.at(3)}, {1, 1},
                 {kernel / 2, kernel / 2, kernel / 2, kernel / 2}} {}
  int64_t K() const { return C / geometry.group * kernel * kernel; }
  int64_t M, C, kernel, size;
  ConvGeometry geometry;
};

// Each gives back the pixels, or rows of X.
int64_t run_gemm(const Gemm& layer, const Matrix& matrix, const char* isa, long runs) {
  std::string error;
  const auto plan = make_gemm_plan(matrix.view, isa_from_name(isa), &error);
  const std::vector<float> X = ones(layer.N * layer.K), bias = ones(layer.M);
  std::vector<float> Y(static_cast<size_t>(layer.N * layer.M));
  const Workspace workspace = allocate(plan->workspace_bytes(layer.N));
  Epilogue epilogue;
  epilogue.bias = bias.data();
  for (long run = 0; run < runs; ++run) plan->run(X.data(), layer.N, Y.data(), epilogue, workspace.get(), {});
  return layer.N;
}

int64_t run_conv(const Conv& layer, const Matrix& matrix, const char* isa, long runs) {
  std::string error;
  const auto plan = make_conv_plan(matrix.view, layer.geometry, isa_from_name(isa), &error);
  const int64_t size = layer.size;
  int64_t out_h, out_w;
  plan->output_size(size, size, &out_h, &out_w);
  const std::vector<float> X = ones(layer.C * size * size), bias = ones(layer.M);
  std::vector<float> Y(static_cast<size_t>(layer.M * out_h * out_w));
  const Workspace workspace = allocate(plan->workspace_bytes(1, size, size));
  Epilogue epilogue;
  epilogue.bias = bias.data();
  for (long run = 0; run < runs; ++run) plan->run(X.data(), 1, size, size, Y.data(), epilogue, workspace.get(), {});
  return out_h * out_w;
}

// Requantized to uint8, with a zero point on both sides.
struct Quantized {
  Quantized(const Matrix& matrix, int64_t inputs)
      : values(matrix.values.size(), 1), X(static_cast<size_t>(inputs), 100), scale(static_cast<size_t>(matrix.view.M), 0.1f),
        bias(scale.size(), 1), view(matrix.view), input{X.data(), false, 128} {
    view.values = values.data();
    epilogue.bias = bias.data();
    epilogue.scale = scale.data();
    epilogue.zero_point = 128;
  }
  std::vector<int8_t> values;
  std::vector<uint8_t> X;
  std::vector<float> scale;
  std::vector<int32_t> bias;
  GroupCsrView view;
  QuantizedInput input;
  QuantizedEpilogue epilogue;
};

int64_t run_quantized_gemm(const Gemm& layer, const Matrix& matrix, const char* set, long runs) {
  std::string error;
  const Quantized operands(matrix, layer.N * layer.K);
  const auto plan = make_quantized_gemm_plan(operands.view, quantized_kernels_from_name(set), &error);
  std::vector<uint8_t> Y(static_cast<size_t>(layer.N * layer.M));
  const Workspace workspace = allocate(plan->workspace_bytes(layer.N));
  for (long run = 0; run < runs; ++run) {
    plan->run(operands.input, layer.N, Y.data(), operands.epilogue, workspace.get(), {});
  }
  return layer.N;
}

int64_t run_quantized_conv(const Conv& layer, const Matrix& matrix, const char* set, long runs) {
  std::string error;
  const int64_t size = layer.size;
  const Quantized operands(matrix, layer.C * size * size);
  const auto plan = make_quantized_conv_plan(operands.view, layer.geometry, quantized_kernels_from_name(set), &error);
  int64_t out_h, out_w;
  plan->output_size(size, size, &out_h, &out_w);
  std::vector<uint8_t> Y(static_cast<size_t>(layer.M * out_h * out_w));
  const Workspace workspace = allocate(plan->workspace_bytes(1, size, size));
  for (long run = 0; run < runs; ++run) {
    plan->run(operands.input, 1, size, size, Y.data(), operands.epilogue, workspace.get(), {});
  }
  return out_h * out_w;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 10) return 2;
  const char* const isa = argv[1];
  const int64_t r = std::atoll(argv[2]), c = std::atoll(argv[3]);
  const double density = std::atof(argv[4]);
  const long runs = std::atol(argv[5]);
  const std::string operation = argv[6];
  std::vector<int64_t> sizes;
  for (int i = 7; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  const bool is_quantized = operation.rfind("quantized_", 0) == 0;
  double multiply_adds;
  if (operation == "gemm" || operation == "quantized_gemm") {
    const Gemm layer(sizes);
    const Matrix matrix(layer.M, layer.K, r, c, density);
    const int64_t pixels = (is_quantized ? run_quantized_gemm : run_gemm)(layer, matrix, isa, runs);
    multiply_adds = static_cast<double>(pixels) * static_cast<double>(matrix.values.size());
  } else {
    const Conv layer(sizes);
    const Matrix matrix(layer.M, layer.K(), r, c, density);
    const int64_t pixels = (is_quantized ? run_quantized_conv : run_conv)(layer, matrix, isa, runs);
    multiply_adds = static_cast<double>(pixels) * static_cast<double>(matrix.values.size());
  }
  std::printf("%.0f\n", multiply_adds);
  return 0;
}
