// QGroupCsrGemm and QGroupCsrConv: integer layers, computed by the C kernels of the microcontroller. They are here
// to run a network with the device's own code, not to be fast.

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "error.h"
#include "kernels/interface.h"
#include "operators.h"
#include "scalpel_kernels.h"

namespace scalpel {
namespace {

// Input positions; see scalpel_graph/quantized_ops.py.
enum Input : size_t { kX, kValues, kRowOffsets, kColumnIndices, kBias, kMultiplier, kShift };

// No sum is larger, nor one of int8 weights times its multiplier.
constexpr int64_t kMostOfSum = int64_t{1} << 62;

// The constants of a node, checked, as the kernels take them.
class Weights {
 public:
  explicit Weights(const Node& node) : shape(node.ints_attribute("weight_shape")) {
    if (shape.size() < 2 || shape.size() > 4 || std::any_of(shape.begin(), shape.end(), [](int64_t n) { return n < 1; })) {
      node.fail("weight_shape " + to_string(shape) + " must be [M, K] or [M, C / group, kernel...], all at least 1");
    }
    M = shape[0];
    for (size_t i = 1; i < shape.size(); ++i) {
      if (__builtin_mul_overflow(K, shape[i], &K)) node.fail("weight_shape " + to_string(shape) + " is too large");
    }
    if (M > std::numeric_limits<uint16_t>::max()) node.fail("more than 65535 outputs");
    const Tensor tensor = node.constant(kValues, "values");
    is_wide = tensor.type == kOrtInt16;
    if ((!is_wide && tensor.type != kOrtInt8) || tensor.dims.size() != 3) {
      node.fail("values must be int16 or int8 [n_groups, r, c], got " + describe(tensor));
    }
    r = tensor.dims[1];
    c = tensor.dims[2];
    if ((r != 1 && r != 2 && r != 4) || c != (is_wide ? 2 : 4)) {
      node.fail("groups of " + std::to_string(r) + "x" + std::to_string(c) + ": there are kernels for 1x2, 2x2 and " +
                "4x2 of int16, 1x4, 2x4 and 4x4 of int8");
    }
    decode(node, tensor);
    read_scales(node);
    input_zero_point = limited(node, "input_zero_point");
    input_min = limited(node, "input_min");
    input_max = limited(node, "input_max");
    output_zero_point = limited(node, "output_zero_point");
    output_min = limited(node, "output_min");
    output_max = limited(node, "output_max");
    if (input_min > input_max || output_min > output_max) node.fail("a minimum is above its maximum");
    check_sums(node);
  }

  // int8 weights: the bias with the input's zero point in it. int16 weights: with the rounding in it.
  int64_t kernel_bias(size_t row) const { return bias[row] + extra_bias[row]; }

  std::vector<int64_t> shape;
  int64_t M = 0, K = 1, r = 0, c = 0;
  bool is_wide = false;
  std::vector<int16_t> dense;  // [M][K]
  std::vector<int64_t> bias, extra_bias;
  std::vector<int32_t> multipliers;
  std::vector<uint8_t> shifts;
  int16_t input_zero_point = 0, input_min = 0, input_max = 0, output_zero_point = 0, output_min = 0, output_max = 0;

 private:
  static int16_t limited(const Node& node, const char* name) {
    const int64_t value = node.int_attribute(name);
    if (value < INT16_MIN || value > INT16_MAX) node.fail(std::string(name) + " is outside of int16");
    return static_cast<int16_t>(value);
  }

  void decode(const Node& node, const Tensor& values) {
    const Tensor offsets = node.constant(kRowOffsets, "row_offsets");
    const Tensor columns = node.constant(kColumnIndices, "column_indices");
    GroupCsrView matrix;
    matrix.M = M;
    matrix.K = K;
    matrix.r = r;
    matrix.c = c;
    matrix.values = values.data;
    matrix.n_groups = values.dims[0];
    matrix.n_row_offsets = (M + r - 1) / r + 1;
    const bool is_narrow = columns.type == kOrtUint16;
    if (offsets.type != kOrtInt32 || offsets.dims != std::vector<int64_t>{(M + r - 1) / r + 1}) {
      node.fail("row_offsets must be int32 [" + std::to_string((M + r - 1) / r + 1) + "], got " + describe(offsets));
    }
    if ((!is_narrow && columns.type != kOrtInt32) || columns.dims != std::vector<int64_t>{matrix.n_groups}) {
      node.fail("column_indices must be uint16 or int32 [" + std::to_string(matrix.n_groups) + "], got " +
                describe(columns));
    }
    matrix.row_offsets = static_cast<const int32_t*>(offsets.data);
    if (is_narrow) {
      matrix.columns_u16 = static_cast<const uint16_t*>(columns.data);
    } else {
      matrix.columns_i32 = static_cast<const int32_t*>(columns.data);
    }
    const std::string error = validate(matrix);
    if (!error.empty()) node.fail(error);
    if (M > std::numeric_limits<int32_t>::max() / K) node.fail("weight_shape " + to_string(shape) + " is too large");
    dense.assign(static_cast<size_t>(M * K), 0);
    const auto* narrow = static_cast<const int8_t*>(values.data);
    const auto* wide = static_cast<const int16_t*>(values.data);
    for (int64_t block = 0; block * r < M; ++block) {
      for (int64_t group = matrix.row_offsets[block]; group < matrix.row_offsets[block + 1]; ++group) {
        const int64_t column = is_narrow ? matrix.columns_u16[group] : matrix.columns_i32[group];
        for (int64_t i = 0; i < r * c; ++i) {
          const int64_t row = block * r + i / c, k = column * c + i % c;
          const size_t at = static_cast<size_t>(group * r * c + i);
          if (row < M && k < K) dense[static_cast<size_t>(row * K + k)] = is_wide ? wide[at] : narrow[at];
        }
      }
    }
  }

  void read_scales(const Node& node) {
    const Tensor given = node.constant(kBias, "bias");
    if (given.type != kOrtInt64 || given.dims != std::vector<int64_t>{M}) {
      node.fail("bias must be int64 [" + std::to_string(M) + "], got " + describe(given));
    }
    const auto* values = static_cast<const int64_t*>(given.data);
    bias.assign(values, values + M);
    for (int32_t value : each(node, kMultiplier, "multiplier", std::numeric_limits<int32_t>::max())) {
      multipliers.push_back(value);
    }
    for (int32_t value : each(node, kShift, "shift", 62)) shifts.push_back(static_cast<uint8_t>(value));
    if (is_wide && (std::any_of(multipliers.begin(), multipliers.end(), [](int32_t m) { return m != 1; }) ||
                    std::any_of(shifts.begin(), shifts.end(), [this](uint8_t s) { return s != shifts[0]; }))) {
      node.fail("int16 weights take a multiplier of 1 and one shift");
    }
  }

  // One number for each row.
  std::vector<int32_t> each(const Node& node, size_t index, const char* name, int32_t most) const {
    const Tensor given = node.constant(index, name);
    const bool is_one = given.dims == std::vector<int64_t>{1};
    if (given.type != kOrtInt32 || (!is_one && given.dims != std::vector<int64_t>{M})) {
      node.fail(std::string(name) + " must be int32 [" + std::to_string(M) + "] or [1], got " + describe(given));
    }
    const auto* values = static_cast<const int32_t*>(given.data);
    std::vector<int32_t> found(static_cast<size_t>(M));
    for (size_t row = 0; row < found.size(); ++row) {
      found[row] = values[is_one ? 0 : row];
      if (found[row] < 0 || found[row] > most) {
        node.fail(std::string(name) + "[" + std::to_string(is_one ? 0 : row) + "] = " + std::to_string(found[row]) +
                  " is outside 0 to " + std::to_string(most));
      }
    }
    return found;
  }

  // No sum may overflow, whatever the input is.
  void check_sums(const Node& node) {
    const int64_t reach = std::max(std::abs(int64_t{input_min}), std::abs(int64_t{input_max}));
    for (size_t row = 0; row < static_cast<size_t>(M); ++row) {
      int64_t sum = 0, magnitude = 0;
      for (size_t k = 0; k < static_cast<size_t>(K); ++k) {
        const int64_t w = dense[row * static_cast<size_t>(K) + k];
        sum += w;
        magnitude += std::abs(w);
      }
      const int64_t rounding = is_wide && shifts[row] > 0 ? int64_t{1} << (shifts[row] - 1) : 0;
      extra_bias.push_back(rounding - input_zero_point * sum);
      const int64_t most = kMostOfSum / std::max(multipliers[row], int32_t{1});
      if (bias[row] <= -most || bias[row] >= most || magnitude * reach + std::abs(kernel_bias(row)) > most) {
        node.fail("the sums of output " + std::to_string(row) + " may overflow");
      }
    }
    if (is_wide && (input_zero_point != 0 || output_zero_point != 0)) node.fail("int16 weights take zero points of 0");
  }
};

// The weights in the order of a kernel, with columns that say where in the input a group lies.
struct Packed {
  std::vector<int16_t> wide;  // aligned to 4 by its allocation
  std::vector<int8_t> narrow;
  std::vector<uint16_t> columns, counts;
  std::vector<int64_t> bias;
  scalpel_q15_layer q15{};
  scalpel_w8_layer w8{};

  // `place(k, group of rows)` is the position of a group's first column in the input; k a multiple of c within its run.
  // Columns are grouped within runs of `run` neighbours, the last group of each being filled up with zeros.
  template <typename Place>
  Packed(const Weights& weights, const std::string& label, int64_t run, const Place& place) {
    static constexpr int64_t kUnpacked[] = {0, 2, 1, 3};
    const int64_t r = weights.r, c = weights.c;
    for (int64_t first = 0; first < weights.M; first += r) {
      int64_t count = 0;
      for (int64_t start = 0; start < weights.K; start += run) {
        for (int64_t k = start; k < start + run; k += c) {
          const int64_t end = std::min(k + c, start + run);
          if (!any(weights, first, k, end)) continue;
          for (int64_t row = first; row < first + r; ++row) {
            for (int64_t i = 0; i < c; ++i) {
              const int64_t column = k + (weights.is_wide ? i : kUnpacked[i]);
              const bool is_there = row < weights.M && column < end;
              const int16_t value = is_there ? weights.dense[static_cast<size_t>(row * weights.K + column)] : int16_t{0};
              if (weights.is_wide) {
                wide.push_back(value);
              } else {
                narrow.push_back(static_cast<int8_t>(value));
              }
            }
          }
          const int64_t position = place(k, first) / c;
          if (position > std::numeric_limits<uint16_t>::max()) throw Error(label + ": the input is too large for the kernels");
          columns.push_back(static_cast<uint16_t>(position));
          ++count;
        }
      }
      if (count > std::numeric_limits<uint16_t>::max()) throw Error(label + ": a row has too many groups for the kernels");
      counts.push_back(static_cast<uint16_t>(count));
    }
    for (size_t row = 0; row < static_cast<size_t>(weights.M); ++row) {
      bias.push_back(weights.kernel_bias(row));
    }
    const auto rows = static_cast<uint16_t>(weights.M);
    q15.values = wide.data();
    q15.columns = columns.data();
    q15.counts = counts.data();
    q15.bias = bias.data();
    q15.rows = rows;
    q15.min = weights.output_min;
    q15.max = weights.output_max;
    q15.shift = weights.shifts[0];
    w8.values = narrow.data();
    w8.columns = columns.data();
    w8.counts = counts.data();
    w8.bias = bias.data();
    w8.multipliers = weights.multipliers.data();
    w8.shifts = weights.shifts.data();
    w8.rows = rows;
    w8.zero_point = weights.output_zero_point;
    w8.min = weights.output_min;
    w8.max = weights.output_max;
    w8.y_is_int8 = 0;
  }

 private:
  static bool any(const Weights& weights, int64_t first, int64_t k, int64_t end) {
    for (int64_t row = first; row < std::min(first + weights.r, weights.M); ++row) {
      const int16_t* begin = weights.dense.data() + row * weights.K;
      if (std::any_of(begin + k, begin + end, [](int16_t w) { return w != 0; })) return true;
    }
    return false;
  }
};

using Q15Fc = void (*)(const scalpel_q15_layer*, const int16_t*, int16_t*);
using W8Fc = void (*)(const scalpel_w8_layer*, const int16_t*, void*);
using Q15Conv = void (*)(const scalpel_q15_layer*, const scalpel_windows*, const int16_t*, int16_t*);
using W8Conv = void (*)(const scalpel_w8_layer*, const scalpel_windows*, const int16_t*, void*);
// By the rows of a group: 1, 2 and 4. Sums of 64 bits give what those of 32 give wherever they fit.
constexpr Q15Fc kQ15Fc[] = {scalpel_fc_q15_1x2_u16_acc64, scalpel_fc_q15_2x2_u16_acc64, scalpel_fc_q15_4x2_u16_acc64};
constexpr W8Fc kW8Fc[] = {scalpel_fc_w8_1x4_u16_acc64, scalpel_fc_w8_2x4_u16_acc64, scalpel_fc_w8_4x4_u16_acc64};
constexpr Q15Conv kQ15Conv[] = {scalpel_conv_q15_1x2_acc64, scalpel_conv_q15_2x2_acc64, scalpel_conv_q15_4x2_acc64};
constexpr W8Conv kW8Conv[] = {scalpel_conv_w8_1x4_acc64, scalpel_conv_w8_2x4_acc64, scalpel_conv_w8_4x4_acc64};

size_t which(const Weights& weights) { return static_cast<size_t>(weights.r / 2); }

int16_t within(const Weights& weights, int16_t x) { return std::clamp(x, weights.input_min, weights.input_max); }

class QGemm final : public Kernel {
 public:
  explicit QGemm(const Node& node)
      : Kernel(node.api()), label_(node.label()), weights_(node),
        packed_(weights_, label_, weights_.K, [](int64_t k, int64_t) { return k; }) {
    if (weights_.shape.size() != 2) node.fail("weight_shape " + to_string(weights_.shape) + " must be [M, K]");
  }

  void compute(OrtKernelContext& context) const override {
    OperatorCall call(api(), label_, context);
    Shape shape;
    const int16_t* X = call.input<int16_t>(kX, &shape);
    const int64_t M = weights_.M, K = weights_.K;
    if (shape.rank == 0 || shape.dims[shape.rank - 1] != K) {
      throw Error(label_ + ": X " + to_string(shape.dims, shape.rank) + " must have the shape [..., " +
                  std::to_string(K) + "]");
    }
    shape.dims[shape.rank - 1] = M;
    int16_t* Y = call.output<int16_t>(shape);
    int64_t N = 1;
    for (size_t i = 0; i + 1 < shape.rank; ++i) N *= shape.dims[i];
    // Kernels read whole groups of columns.
    std::vector<int16_t> x(static_cast<size_t>(K + weights_.c)), y(static_cast<size_t>(M));
    for (int64_t n = 0; n < N; ++n) {
      std::transform(X + n * K, X + (n + 1) * K, x.begin(), [this](int16_t v) { return within(weights_, v); });
      if (weights_.is_wide) {
        kQ15Fc[which(weights_)](&packed_.q15, x.data(), y.data());
      } else {
        kW8Fc[which(weights_)](&packed_.w8, x.data(), y.data());
      }
      std::copy(y.begin(), y.end(), Y + n * M);
    }
  }

 private:
  const std::string label_;
  const Weights weights_;
  const Packed packed_;
};

class QConv final : public Kernel {
 public:
  explicit QConv(const Node& node) : Kernel(node.api()), label_(node.label()), weights_(node) {
    const std::vector<int64_t>& shape = weights_.shape;
    if (shape.size() < 3) node.fail("weight_shape " + to_string(shape) + " must be [M, C / group, kernel...]");
    spatial_ = shape.size() - 2;
    group_ = node.int_attribute("group");
    group_channels_ = shape[1];
    if (group_ < 1 || weights_.M % group_ != 0) node.fail("group " + std::to_string(group_) + " does not divide M");
    if (group_ > 1 && (weights_.M / group_ % weights_.r != 0 || group_channels_ % weights_.c != 0)) {
      node.fail("groups of weights straddle groups of the convolution");
    }
    const std::vector<int64_t> strides = read(node, "strides", 1, spatial_);
    const std::vector<int64_t> dilations = read(node, "dilations", 1, spatial_);
    const std::vector<int64_t> pads = read(node, "pads", 0, 2 * spatial_);
    for (size_t axis = 0; axis < spatial_; ++axis) {
      const size_t to = 2 - spatial_ + axis;  // a 1-D convolution has only a width
      kernel_[to] = shape[2 + axis];
      strides_[to] = strides[axis];
      dilations_[to] = dilations[axis];
      begin_[to] = pads[axis];
      end_[to] = pads[spatial_ + axis];
    }
  }

  void compute(OrtKernelContext& context) const override {
    OperatorCall call(api(), label_, context);
    Shape shape;
    const int16_t* X = call.input<int16_t>(kX, &shape);
    const int64_t channels = group_channels_ * group_, M = weights_.M;
    if (shape.rank != 2 + spatial_ || shape.dims[1] != channels) {
      throw Error(label_ + ": X " + to_string(shape.dims, shape.rank) + " must have the shape [N, " +
                  std::to_string(channels) + (spatial_ == 1 ? ", W]" : ", H, W]"));
    }
    const int64_t in[2] = {spatial_ == 1 ? 1 : shape.dims[2], shape.dims[1 + spatial_]};
    int64_t padded[2], out[2];
    for (size_t axis = 0; axis < 2; ++axis) {
      padded[axis] = begin_[axis] + in[axis] + end_[axis];
      const int64_t room = padded[axis] - dilations_[axis] * (kernel_[axis] - 1) - 1;
      if (room < 0) throw Error(label_ + ": X with its pads is smaller than the kernel");
      out[axis] = room / strides_[axis] + 1;
      if (out[axis] > std::numeric_limits<uint16_t>::max()) throw Error(label_ + ": X is too large for the kernels");
    }
    const int64_t wide_channels = (channels + weights_.c - 1) / weights_.c * weights_.c;
    const int64_t rows_of_group = M / group_;
    const Packed packed(weights_, label_, group_channels_, [&](int64_t k, int64_t row) {
      const int64_t tap = k / group_channels_, channel = k % group_channels_ + row / rows_of_group * group_channels_;
      const int64_t h = tap / kernel_[1] * dilations_[0], w = tap % kernel_[1] * dilations_[1];
      return (h * padded[1] + w) * wide_channels + channel;
    });
    shape.dims[1] = M;
    shape.dims[2] = out[0];
    shape.dims[1 + spatial_] = out[1];
    int16_t* Y = call.output<int16_t>(shape);
    scalpel_windows windows;
    windows.height = static_cast<uint16_t>(out[0]);
    windows.width = static_cast<uint16_t>(out[1]);
    windows.x_row_step = static_cast<uint32_t>(strides_[0] * padded[1] * wide_channels);
    windows.x_column_step = static_cast<uint32_t>(strides_[1] * wide_channels);
    windows.y_row_step = static_cast<uint32_t>(out[1] * M);
    windows.y_pixel_step = static_cast<uint32_t>(M);
    std::vector<int16_t> x(static_cast<size_t>(padded[0] * padded[1] * wide_channels));
    std::vector<int16_t> y(static_cast<size_t>(out[0] * out[1] * M));
    for (int64_t n = 0; n < shape.dims[0]; ++n) {
      std::fill(x.begin(), x.end(), weights_.input_zero_point);
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t h = 0; h < in[0]; ++h) {
          for (int64_t w = 0; w < in[1]; ++w) {
            const int64_t at = ((begin_[0] + h) * padded[1] + begin_[1] + w) * wide_channels + c;
            x[static_cast<size_t>(at)] = within(weights_, *X++);
          }
        }
      }
      if (weights_.is_wide) {
        kQ15Conv[which(weights_)](&packed.q15, &windows, x.data(), y.data());
      } else {
        kW8Conv[which(weights_)](&packed.w8, &windows, x.data(), y.data());
      }
      for (int64_t c = 0; c < M; ++c) {
        for (int64_t p = 0; p < out[0] * out[1]; ++p) *Y++ = y[static_cast<size_t>(p * M + c)];
      }
    }
  }

 private:
  static std::vector<int64_t> read(const Node& node, const char* name, int64_t least, size_t length) {
    std::vector<int64_t> values = node.ints_attribute(name);
    const auto is_bad = [least](int64_t n) { return n < least || n > std::numeric_limits<uint16_t>::max(); };
    if (values.size() != length || std::any_of(values.begin(), values.end(), is_bad)) {
      node.fail(std::string(name) + " must be " + std::to_string(length) + " ints of at least " +
                std::to_string(least) + " and at most 65535, got " + to_string(values));
    }
    return values;
  }

  const std::string label_;
  const Weights weights_;
  size_t spatial_ = 0;
  int64_t group_ = 1, group_channels_ = 1;
  int64_t kernel_[2] = {1, 1}, strides_[2] = {1, 1}, dilations_[2] = {1, 1}, begin_[2] = {0, 0}, end_[2] = {0, 0};
};

}  // namespace

std::unique_ptr<Kernel> make_q_gemm(const Node& node, Isa) { return std::make_unique<QGemm>(node); }
std::unique_ptr<Kernel> make_q_conv(const Node& node, Isa) { return std::make_unique<QConv>(node); }

}  // namespace scalpel
