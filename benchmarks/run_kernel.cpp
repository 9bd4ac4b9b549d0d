// Runs one layer a number of times, for counting instructions (benchmarks/instructions.py):
//   run_kernel ISA R C DENSITY RUNS gemm M K N
//   run_kernel ISA R C DENSITY RUNS conv M CHANNELS KERNEL STRIDE GROUP SIZE
// Prints the multiply-adds by stored weights in a run.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bindings/workspace.h"
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

Isa isa_from_name(const char* name) {
  for (Isa isa : available_isas()) {
    if (std::strcmp(name, isa_name(isa)) == 0) return isa;
  }
  std::fprintf(stderr, "%s cannot run here\n", name);
  std::exit(1);
}

std::vector<float> ones(int64_t size) { return std::vector<float>(static_cast<size_t>(size), 1.0f); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 10) return 2;
  const Isa isa = isa_from_name(argv[1]);
  const int64_t r = std::atoll(argv[2]), c = std::atoll(argv[3]);
  const double density = std::atof(argv[4]);
  const long runs = std::atol(argv[5]);
  std::vector<int64_t> sizes;
  for (int i = 7; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  std::string error;
  double pixels;
  if (std::strcmp(argv[6], "gemm") == 0) {
    const int64_t M = sizes.at(0), K = sizes.at(1), N = sizes.at(2);
    const Matrix matrix(M, K, r, c, density);
    const auto plan = make_gemm_plan(matrix.view, isa, &error);
    const std::vector<float> X = ones(N * K), bias = ones(M);
    std::vector<float> Y(static_cast<size_t>(N * M));
    const Workspace workspace = allocate(plan->workspace_bytes(N));
    Epilogue epilogue;
    epilogue.bias = bias.data();
    for (long run = 0; run < runs; ++run) plan->run(X.data(), N, Y.data(), epilogue, workspace.get(), {});
    pixels = static_cast<double>(N) * static_cast<double>(matrix.values.size());
  } else {
    const int64_t M = sizes.at(0), C = sizes.at(1), kernel = sizes.at(2), stride = sizes.at(3), group = sizes.at(4);
    const int64_t size = sizes.at(5), pad = kernel / 2;
    const Matrix matrix(M, C / group * kernel * kernel, r, c, density);
    const ConvGeometry geometry{C, group, {kernel, kernel}, {stride, stride}, {1, 1}, {pad, pad, pad, pad}};
    const auto plan = make_conv_plan(matrix.view, geometry, isa, &error);
    int64_t out_h, out_w;
    plan->output_size(size, size, &out_h, &out_w);
    const std::vector<float> X = ones(C * size * size), bias = ones(M);
    std::vector<float> Y(static_cast<size_t>(M * out_h * out_w));
    const Workspace workspace = allocate(plan->workspace_bytes(1, size, size));
    Epilogue epilogue;
    epilogue.bias = bias.data();
    for (long run = 0; run < runs; ++run) plan->run(X.data(), 1, size, size, Y.data(), epilogue, workspace.get(), {});
    pixels = static_cast<double>(out_h * out_w) * static_cast<double>(matrix.values.size());
  }
  std::printf("%.0f\n", pixels);
  return 0;
}
