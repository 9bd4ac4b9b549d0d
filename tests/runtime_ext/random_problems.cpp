// Runs every kernel on random problems in memory of exactly the right size, and on corrupt arrays: for a build with
// AddressSanitizer and UndefinedBehaviorSanitizer, and for emulated processors. Exits with 1 if a kernel and the scalar
// reference disagree.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "dispatch/kernel_sets.h"
#include "kernels/interface.h"

namespace {

using namespace scalpel;

std::mt19937 rng(1);

int64_t uniform(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); }

std::vector<float> normal(int64_t size) {
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = distribution(rng);
  return values;
}

// 16-bit numbers of any sign and fraction, of a magnitude from 1/8 to 2, and some subnormal.
std::vector<uint16_t> halves(int64_t size, int fraction_bits, int bias) {
  std::vector<uint16_t> values(static_cast<size_t>(size));
  for (uint16_t& value : values) {
    const int64_t exponent = uniform(0, 9) == 0 ? 0 : bias + uniform(-3, 0);
    const int64_t fraction = uniform(0, (1 << fraction_bits) - 1);
    value = static_cast<uint16_t>(uniform(0, 1) << 15 | exponent << fraction_bits | fraction);
  }
  return values;
}

struct Matrix {
  Matrix(int64_t M_, int64_t K_, int64_t r_, int64_t c_)
      : Matrix(M_, K_, r_, c_, std::uniform_real_distribution<>(0, 1)(rng)) {}
  Matrix(int64_t M_, int64_t K_, int64_t r_, int64_t c_, double density) : M(M_), K(K_), r(r_), c(c_) {
    for (int64_t block = 0; block < (M + r - 1) / r; ++block) {
      for (int64_t column = 0; column < (K + c - 1) / c; ++column) {
        if (std::uniform_real_distribution<>(0, 1)(rng) < density) columns.push_back(static_cast<int32_t>(column));
      }
      row_offsets.push_back(static_cast<int32_t>(columns.size()));
    }
    const auto size = static_cast<int64_t>(columns.size()) * r * c;
    switch (uniform(0, 2)) {
      case 0:
        values = normal(size);
        break;
      case 1:
        value_type = ValueType::kFloat16;
        short_values = halves(size, 10, 15);
        break;
      default:
        value_type = ValueType::kBfloat16;
        short_values = halves(size, 7, 127);
    }
  }

  GroupCsrView view() const {
    GroupCsrView result;
    result.M = M;
    result.K = K;
    result.r = r;
    result.c = c;
    result.value_type = value_type;
    result.values = value_type == ValueType::kFloat32 ? static_cast<const void*>(values.data()) : short_values.data();
    result.n_groups = static_cast<int64_t>(columns.size());
    result.row_offsets = row_offsets.data();
    result.n_row_offsets = static_cast<int64_t>(row_offsets.size());
    result.columns_i32 = columns.data();
    return result;
  }

  int64_t M, K, r, c;
  ValueType value_type = ValueType::kFloat32;
  std::vector<float> values;
  std::vector<uint16_t> short_values;
  std::vector<int32_t> row_offsets{0}, columns;
};

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

void require_close(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    require(std::fabs(a[i] - b[i]) <= 1e-3f + 1e-3f * std::fabs(b[i]), "a kernel differs from the scalar reference");
  }
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

std::unique_ptr<void, Free> workspace(size_t bytes) {
  void* memory = nullptr;
  require(posix_memalign(&memory, 64, bytes) == 0, "out of memory");
  return std::unique_ptr<void, Free>(memory);
}

std::vector<float> run(const GemmPlan& plan, const std::vector<float>& X, int64_t N, int64_t M, const Epilogue& e) {
  std::vector<float> Y(static_cast<size_t>(N * M));
  plan.run(X.data(), N, Y.data(), e, workspace(plan.workspace_bytes(N)).get(), {});
  return Y;
}

void try_gemm(int64_t r, int64_t c) {
  const Matrix matrix(uniform(1, 70), uniform(1, 120), r, c);
  const int64_t N = uniform(1, 70);
  const std::vector<float> X = normal(N * matrix.K), bias = normal(matrix.M), residual = normal(N * matrix.M);
  const Epilogue epilogue{uniform(0, 1) ? bias.data() : nullptr, uniform(0, 1) ? residual.data() : nullptr, -1, 2};
  std::string error;
  const auto scalar = make_gemm_plan(matrix.view(), Isa::kScalar, &error);
  require(scalar != nullptr, error.c_str());
  const std::vector<float> expected = run(*scalar, X, N, matrix.M, epilogue);
  for (Isa isa : available_isas()) {
    require_close(run(*make_gemm_plan(matrix.view(), isa, &error), X, N, matrix.M, epilogue), expected);
  }
}

std::vector<int8_t> bytes(int64_t size) {
  std::vector<int8_t> values(static_cast<size_t>(size));
  for (int8_t& value : values) value = static_cast<int8_t>(uniform(-128, 127));
  return values;
}

// A quantized layer of `outputs` values in every kind of output, on all kernels; run(kernels, X, Y, epilogue) runs it.
template <typename Run>
void compare_quantized(int64_t M, int64_t inputs, int64_t outputs, const Run& run) {
  const std::vector<int8_t> X = bytes(inputs), residual = bytes(outputs);
  const std::vector<float> scale(static_cast<size_t>(M), uniform(0, 4) == 0 ? 2.0f : 0.003f);
  const std::vector<int32_t> bias(static_cast<size_t>(M), static_cast<int32_t>(uniform(-1000, 1000)));
  const QuantizedInput input{X.data(), uniform(0, 1) != 0, static_cast<int32_t>(uniform(0, 100))};
  constexpr ElementType kTypes[] = {ElementType::kUint8, ElementType::kInt8, ElementType::kInt32, ElementType::kFloat32};
  QuantizedEpilogue epilogue;
  epilogue.type = kTypes[uniform(0, 3)];
  epilogue.bias = bias.data();
  epilogue.scale = scale.data();
  epilogue.zero_point = static_cast<int32_t>(uniform(0, 100));
  if (uniform(0, 1) != 0) epilogue.min = 0;
  if (uniform(0, 1) != 0) {
    epilogue.residual.values = residual.data();
    epilogue.residual.type = kTypes[uniform(0, 1)];
    epilogue.residual.scale = 0.3f;
    epilogue.residual.is_first = uniform(0, 1) != 0;
  }
  const bool is_byte = epilogue.type == ElementType::kUint8 || epilogue.type == ElementType::kInt8;
  std::vector<int8_t> expected(static_cast<size_t>(outputs) * (is_byte ? 1 : 4)), Y(expected.size());
  run(nullptr, input, expected.data(), epilogue);
  for (const QuantizedKernels* kernels : available_quantized_kernels()) {
    run(kernels, input, Y.data(), epilogue);
    require(Y == expected, "a quantized kernel differs from the scalar reference");
  }
}

void try_quantized_gemm(int64_t r, int64_t c) {
  const Matrix matrix(uniform(1, 70), uniform(1, 120), r, c);
  const int64_t N = uniform(1, 90);
  const std::vector<int8_t> values = bytes(static_cast<int64_t>(matrix.columns.size()) * r * c);
  GroupCsrView view = matrix.view();
  view.values = values.data();
  compare_quantized(matrix.M, N * matrix.K, N * matrix.M,
                    [&](const QuantizedKernels* kernels, const QuantizedInput& X, void* Y, const QuantizedEpilogue& e) {
                      std::string error;
                      const auto plan = make_quantized_gemm_plan(view, kernels, &error);
                      require(plan != nullptr, error.c_str());
                      plan->run(X, N, Y, e, workspace(plan->workspace_bytes(N)).get(), {});
                    });
}

void try_quantized_conv(int64_t r, int64_t c) {
  const int64_t group = uniform(1, 3), channels = uniform(1, 5), stride = uniform(1, 3);
  const int64_t M = group == 1 ? uniform(1, 20) : group * r * uniform(1, 2);
  const int64_t kernel_h = uniform(1, 4), kernel_w = uniform(1, 4), pad_h = uniform(0, kernel_h), pad_w = uniform(0, kernel_w);
  const ConvGeometry geometry{channels * group,  group,  {kernel_h, kernel_w},
                              {stride, uniform(0, 2) == 0 ? 1 : stride}, {uniform(1, 2), uniform(1, 2)},
                              {pad_h, pad_w, uniform(0, kernel_h), kernel_w - 1 - std::min(pad_w, kernel_w - 1)}};
  const Matrix matrix(M, channels * kernel_h * kernel_w, r, c);
  const std::vector<int8_t> values = bytes(static_cast<int64_t>(matrix.columns.size()) * r * c);
  GroupCsrView view = matrix.view();
  view.values = values.data();
  const int64_t batch = uniform(1, 2), in_h = uniform(1, 20), in_w = uniform(1, 20);
  std::string error;
  int64_t out_h, out_w;
  if (!make_quantized_conv_plan(view, geometry, nullptr, &error)->output_size(in_h, in_w, &out_h, &out_w)) return;
  compare_quantized(M, batch * geometry.in_channels * in_h * in_w, batch * M * out_h * out_w,
                    [&](const QuantizedKernels* kernels, const QuantizedInput& X, void* Y, const QuantizedEpilogue& e) {
                      const auto plan = make_quantized_conv_plan(view, geometry, kernels, &error);
                      require(plan != nullptr, error.c_str());
                      plan->run(X, batch, in_h, in_w, Y, e, workspace(plan->workspace_bytes(batch, in_h, in_w)).get(), {});
                    });
}

void compare_conv(const Matrix& matrix, const ConvGeometry& geometry) {
  const int64_t batch = uniform(1, 2), in_h = uniform(1, 20), in_w = uniform(1, 20), M = matrix.M;
  const std::vector<float> X = normal(batch * geometry.in_channels * in_h * in_w), bias = normal(M);
  std::string error;
  std::vector<float> expected;
  for (Isa isa : available_isas()) {
    const auto plan = make_conv_plan(matrix.view(), geometry, isa, &error);
    require(plan != nullptr, error.c_str());
    int64_t out_h, out_w;
    if (!plan->output_size(in_h, in_w, &out_h, &out_w)) return;
    std::vector<float> Y(static_cast<size_t>(batch * M * out_h * out_w));
    const Epilogue epilogue{bias.data(), nullptr, -1, 2};
    plan->run(X.data(), batch, in_h, in_w, Y.data(), epilogue,
              workspace(plan->workspace_bytes(batch, in_h, in_w)).get(), {});
    if (isa == Isa::kScalar) expected = Y;
    require_close(Y, expected);
  }
}

void try_conv(int64_t r, int64_t c) {
  const int64_t group = uniform(1, 3), channels = uniform(1, 5);
  const int64_t M = group == 1 ? uniform(1, 20) : group * r * uniform(1, 2);
  const ConvGeometry geometry{channels * group,
                              group,
                              {uniform(1, 4), uniform(1, 4)},
                              {uniform(1, 3), uniform(1, 3)},
                              {uniform(1, 2), uniform(1, 2)},
                              {uniform(0, 2), uniform(0, 2), uniform(0, 2), uniform(0, 2)}};
  compare_conv(Matrix(M, channels * geometry.kernel[0] * geometry.kernel[1], r, c), geometry);
}

void try_depthwise_conv() {
  const int64_t channels = uniform(1, 5), size = uniform(1, 5), stride = uniform(1, 2);
  const ConvGeometry geometry{channels,         channels,
                              {size, size},     {stride, stride},
                              {1, 1},           {uniform(0, 3), uniform(0, 3), uniform(0, 3), uniform(0, 3)}};
  compare_conv(Matrix(channels, size * size, 1, 1, 1.0), geometry);
}

std::vector<int32_t> positions(int64_t channels) {
  std::vector<int32_t> result;
  while (static_cast<int64_t>(result.size()) < channels) result.push_back(static_cast<int32_t>(uniform(0, channels)));
  return result;
}

// Windows anywhere, now and then with one that is outside the channels or ends before it begins.
void try_lrn() {
  LrnView lrn;
  lrn.channels = uniform(1, 20);
  std::vector<int32_t> begin = positions(lrn.channels), end = positions(lrn.channels);
  for (size_t c = 0; c < begin.size(); ++c) {
    if (begin[c] > end[c]) std::swap(begin[c], end[c]);
  }
  const bool is_valid = uniform(0, 3) != 0;
  if (!is_valid) {
    begin[0] = static_cast<int32_t>(uniform(lrn.channels + 1, INT32_MAX));
    if (uniform(0, 1) != 0) std::swap(begin[0], end[0]);
  }
  const std::vector<float> bias(begin.size(), 1.0f);
  lrn.window_begin = begin.data();
  lrn.window_end = end.data();
  lrn.bias = bias.data();
  lrn.alpha = 0.5f;
  constexpr float kBetas[] = {0.5f, 0.75f, 1.0f};
  lrn.beta = kBetas[uniform(0, 2)];
  const int64_t batch = uniform(1, 2), pixels = uniform(1, 600);
  const std::vector<float> X = normal(batch * lrn.channels * pixels);
  std::vector<float> expected;
  for (Isa isa : available_isas()) {
    std::string error;
    const auto plan = make_lrn_plan(lrn, isa, &error);
    require((plan != nullptr) == is_valid, "a window outside the channels is refused, and no other");
    if (plan == nullptr) continue;
    std::vector<float> Y(X.size());
    plan->run(X.data(), batch, pixels, Y.data(), {});
    if (isa == Isa::kScalar) expected = Y;
    require_close(Y, expected);
  }
}

// Arrays with one entry changed to anything: refused, or still a matrix that can be run.
void try_corrupt(int64_t r, int64_t c) {
  Matrix matrix(uniform(1, 30), uniform(1, 40), r, c);
  std::vector<int32_t>& array = uniform(0, 1) && !matrix.columns.empty() ? matrix.columns : matrix.row_offsets;
  const auto at = static_cast<size_t>(uniform(0, static_cast<int64_t>(array.size()) - 1));
  array[at] = static_cast<int32_t>(uniform(0, 1) ? uniform(-3, 50) : uniform(INT32_MIN, INT32_MAX));
  const int64_t N = uniform(1, 9);
  const std::vector<float> X = normal(N * matrix.K);
  for (Isa isa : available_isas()) {
    std::string error;
    const auto plan = make_gemm_plan(matrix.view(), isa, &error);
    require((plan == nullptr) == !error.empty(), "a plan or an error, never both");
    if (plan != nullptr) run(*plan, X, N, matrix.M, {});
  }
}

// Sizes that no memory holds: more workspace is asked for than there is, and nothing overflows.
void try_absurd_sizes() {
  constexpr int64_t kMost = INT32_MAX;
  constexpr size_t kNoMemory = size_t{1} << 40;
  std::string error;
  for (int64_t kernel : {1, 2}) {
    const Matrix matrix(4, kernel * kernel, 1, 1);
    for (int64_t stride : {int64_t{1}, kMost}) {
      const ConvGeometry geometry{1,           1, {kernel, kernel}, {stride, stride}, {kMost, kMost},
                                  {kMost, kMost, kMost, kMost}};
      for (Isa isa : available_isas()) {
        const auto plan = make_conv_plan(matrix.view(), geometry, isa, &error);
        require(plan != nullptr, error.c_str());
        int64_t out_h, out_w;
        require(plan->output_size(2, 2, &out_h, &out_w) && out_h > 0 && out_w > 0, "an absurd output size");
        const size_t bytes = plan->workspace_bytes(kMost, 2, 2);
        require(isa == Isa::kScalar || stride > 1 || bytes >= kNoMemory, "too little workspace");
      }
      for (const QuantizedKernels* kernels : available_quantized_kernels()) {
        const auto plan = make_quantized_conv_plan(matrix.view(), geometry, kernels, &error);
        require(plan != nullptr, error.c_str());
        require(plan->workspace_bytes(kMost, 2, 2) < static_cast<size_t>(PTRDIFF_MAX), "an absurd workspace");
      }
    }
  }
  GroupCsrView no_groups;
  const int32_t offsets[] = {0, 0};
  no_groups.M = no_groups.r = INT64_MAX;
  no_groups.K = 1;
  no_groups.row_offsets = offsets;
  no_groups.n_row_offsets = 2;
  for (Isa isa : available_isas()) {
    require(make_gemm_plan(no_groups, isa, &error) != nullptr, "rows that are only claimed take memory");
  }
}

void try_streams() {
  for (Isa isa : available_isas()) {
    const KernelSet* set = kernel_set(isa);
    if (set == nullptr) continue;
    const int64_t count = uniform(1, 5) * kStreamVectors * set->lanes, passes = uniform(1, 3);
    const std::vector<float> from = normal(count);
    std::vector<float> to(static_cast<size_t>(count));
    set->copy_stream(from.data(), count, to.data(), passes);
    require(to == from, "a copy of everything");
    double sum = 0;
    for (const float value : from) sum += static_cast<double>(passes) * static_cast<double>(value);
    require(std::abs(static_cast<double>(set->read_stream(from.data(), count, passes)) - sum) < 1e-2, "the sum of all");
    float result = 1.0f;
    require(set->multiply_add(passes, &result) > 0 && std::isfinite(result), "multiply-adds of finite numbers");
  }
}

}  // namespace

int main() {
  try_absurd_sizes();
  try_streams();
  constexpr int64_t kShapes[][2] = {{1, 1}, {1, 8}, {1, 16}, {2, 1}, {4, 1}, {8, 1}, {16, 1}, {3, 2}, {4, 4}};
  for (int round = 0; round < 60; ++round) {
    for (const auto& shape : kShapes) {
      try_gemm(shape[0], shape[1]);
      try_quantized_gemm(shape[0], shape[1]);
      try_quantized_conv(shape[0], shape[1]);
      try_conv(shape[0], shape[1]);
      try_corrupt(shape[0], shape[1]);
      try_depthwise_conv();
      try_lrn();
    }
  }
  return 0;
}
