// scalpel_graph._kernels: direct access to the kernels for tests and benchmarks.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/machine_rates.h"
#include "bindings/quantized.h"
#include "bindings/thread_pool.h"
#include "bindings/time_calls.h"
#include "bindings/workspace.h"
#include "dispatch/kernel_sets.h"
#include "kernels/interface.h"

namespace scalpel {
namespace {

Epilogue make_epilogue(const std::optional<Floats>& bias, const std::optional<Floats>& residual, float min, float max,
                       int32_t gate, int64_t M, const std::vector<py::ssize_t>& output_shape) {
  if (gate < 0 || gate >= kGates) throw py::value_error("there is no such gate");
  Epilogue epilogue;
  epilogue.min = min;
  epilogue.max = max;
  epilogue.gate = static_cast<Gate>(gate);
  if (bias) {
    require_shape(*bias, {M}, "bias");
    epilogue.bias = bias->data();
  }
  if (residual) {
    require_shape(*residual, output_shape, "residual");
    epilogue.residual = residual->data();
  }
  return epilogue;
}

// A plan of either operation with the shape arithmetic around it; `Call` is one shape's ready-to-run call.
template <typename Plan>
class Runner {
 public:
  virtual ~Runner() = default;

  Floats run(const Floats& X, const std::optional<Floats>& bias, const std::optional<Floats>& residual, float min,
             float max, int32_t gate, size_t threads) const {
    Floats Y(output_shape(X));
    const Epilogue epilogue = make_epilogue(bias, residual, min, max, gate, M_, output_shape(X));
    const Workspace workspace = allocate(workspace_bytes(X));
    call(X, Y.mutable_data(), epilogue, workspace.get(), threads, [](const auto& once) { once(); });
    return Y;
  }

  std::vector<double> time(const Floats& X, const std::optional<Floats>& bias, const std::optional<Floats>& residual,
                           float min, float max, int32_t gate, size_t threads, size_t runs, double seconds) const {
    const std::vector<py::ssize_t> shape = output_shape(X);
    const Epilogue epilogue = make_epilogue(bias, residual, min, max, gate, M_, shape);
    const Workspace workspace = allocate(workspace_bytes(X));
    // Aligned as ONNX Runtime's are.
    const size_t size = std::accumulate(shape.begin(), shape.end(), size_t{1}, std::multiplies<>());
    const Workspace Y = allocate(sizeof(float) * size);
    std::vector<double> times;
    call(X, static_cast<float*>(Y.get()), epilogue, workspace.get(), threads,
         [&](const auto& once) { times = time_calls(once, runs, seconds); });
    return times;
  }

 protected:
  virtual std::vector<py::ssize_t> output_shape(const Floats& X) const = 0;
  virtual size_t workspace_bytes(const Floats& X) const = 0;
  virtual void run_plan(const float* X, const std::vector<py::ssize_t>& shape, float* Y, const Epilogue& epilogue,
                        void* workspace, const Parallel& parallel) const = 0;

  std::unique_ptr<Plan> plan_;
  int64_t M_ = 0;

 private:
  template <typename Repeat>
  void call(const Floats& X, float* Y, const Epilogue& epilogue, void* workspace, size_t threads,
            const Repeat& repeat) const {
    const std::vector<py::ssize_t> shape(X.shape(), X.shape() + X.ndim());
    const float* x = X.data();
    const py::gil_scoped_release release;
    ThreadPool pool(threads);
    const Parallel parallel = pool.parallel();
    repeat([&] { run_plan(x, shape, Y, epilogue, workspace, parallel); });
  }
};

class Gemm final : public Runner<GemmPlan> {
 public:
  Gemm(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
       std::pair<int64_t, int64_t> shape, const std::optional<Floats>& row_scale, const std::string& isa) {
    const auto [M, K] = shape;
    const GroupCsrView matrix = row_scale ? scaled_view(values, row_offsets, column_indices, *row_scale, M, K)
                                          : view(values, row_offsets, column_indices, M, K);
    std::string error;
    plan_ = make_gemm_plan(matrix, isa_from_name(isa), &error);
    if (plan_ == nullptr) throw py::value_error(error);
    M_ = shape.first;
    K_ = shape.second;
  }

 protected:
  std::vector<py::ssize_t> output_shape(const Floats& X) const override {
    if (X.ndim() != 2 || X.shape(1) != K_) throw py::value_error("X must be [N, " + std::to_string(K_) + "]");
    return {X.shape(0), M_};
  }
  size_t workspace_bytes(const Floats& X) const override { return plan_->workspace_bytes(X.shape(0)); }
  void run_plan(const float* X, const std::vector<py::ssize_t>& shape, float* Y, const Epilogue& epilogue,
                void* workspace, const Parallel& parallel) const override {
    plan_->run(X, shape[0], Y, epilogue, workspace, parallel);
  }

 private:
  int64_t K_;
};

class Conv final : public Runner<ConvPlan> {
 public:
  Conv(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
       const std::vector<int64_t>& weight_shape, const std::vector<int64_t>& strides,
       const std::vector<int64_t>& dilations, const std::vector<int64_t>& pads, int64_t group,
       const std::string& isa) {
    const ConvGeometry geometry = conv_geometry(weight_shape, strides, dilations, pads, group);
    spatial_ = weight_shape.size() - 2;
    channels_ = geometry.in_channels;
    M_ = weight_shape[0];
    std::string error;
    plan_ = make_conv_plan(view(values, row_offsets, column_indices, M_, weight_shape[1] * geometry.kernel[0] * geometry.kernel[1]),
                           geometry, isa_from_name(isa), &error);
    if (plan_ == nullptr) throw py::value_error(error);
  }

 protected:
  std::vector<py::ssize_t> output_shape(const Floats& X) const override {
    if (static_cast<size_t>(X.ndim()) != spatial_ + 2 || X.shape(1) != channels_) {
      throw py::value_error("X must be [N, " + std::to_string(channels_) + ", spatial...]");
    }
    const std::array<int64_t, 2> in = spatial_extent(X);
    int64_t out_h, out_w;
    if (!plan_->output_size(in[0], in[1], &out_h, &out_w)) {
      throw py::value_error("the padded input is smaller than the kernel");
    }
    std::vector<py::ssize_t> shape{X.shape(0), M_};
    if (spatial_ == 2) shape.push_back(out_h);
    shape.push_back(out_w);
    return shape;
  }
  size_t workspace_bytes(const Floats& X) const override {
    const std::array<int64_t, 2> in = spatial_extent(X);
    return plan_->workspace_bytes(X.shape(0), in[0], in[1]);
  }
  void run_plan(const float* X, const std::vector<py::ssize_t>& shape, float* Y, const Epilogue& epilogue,
                void* workspace, const Parallel& parallel) const override {
    plan_->run(X, shape[0], spatial_ == 2 ? shape[2] : 1, shape.back(), Y, epilogue, workspace, parallel);
  }

 private:
  std::array<int64_t, 2> spatial_extent(const Floats& X) const {
    return {spatial_ == 2 ? X.shape(2) : 1, X.shape(X.ndim() - 1)};
  }

  size_t spatial_;
  int64_t channels_;
};

class Lrn {
 public:
  Lrn(const Int32s& window_begin, const Int32s& window_end, const Floats& bias, float alpha, float beta,
      const std::string& isa)
      : channels_(bias.size()) {
    const std::vector<py::ssize_t> shape{channels_};
    require_shape(window_begin, shape, "window_begin");
    require_shape(window_end, shape, "window_end");
    require_shape(bias, shape, "bias");
    LrnView lrn;
    lrn.channels = channels_;
    lrn.window_begin = window_begin.data();
    lrn.window_end = window_end.data();
    lrn.bias = bias.data();
    lrn.alpha = alpha;
    lrn.beta = beta;
    std::string error;
    plan_ = make_lrn_plan(lrn, isa_from_name(isa), &error);
    if (plan_ == nullptr) throw py::value_error(error);
  }

  Floats run(const Floats& X, size_t threads) const {
    Floats Y(std::vector<py::ssize_t>(X.shape(), X.shape() + X.ndim()));
    call(X, Y, threads, [](const auto& once) { once(); });
    return Y;
  }

  std::vector<double> time(const Floats& X, size_t threads, size_t runs, double seconds) const {
    Floats Y(std::vector<py::ssize_t>(X.shape(), X.shape() + X.ndim()));
    std::vector<double> times;
    call(X, Y, threads, [&](const auto& once) { times = time_calls(once, runs, seconds); });
    return times;
  }

 private:
  template <typename Repeat>
  void call(const Floats& X, Floats& Y, size_t threads, const Repeat& repeat) const {
    if (X.ndim() < 2 || X.shape(1) != channels_) {
      throw py::value_error("X must be [N, " + std::to_string(channels_) + ", spatial...]");
    }
    int64_t pixels = 1;
    for (py::ssize_t i = 2; i < X.ndim(); ++i) pixels *= X.shape(i);
    const int64_t batch = X.shape(0);
    const float* x = X.data();
    float* y = Y.mutable_data();
    const py::gil_scoped_release release;
    ThreadPool pool(threads);
    const Parallel parallel = pool.parallel();
    repeat([&] { plan_->run(x, batch, pixels, y, parallel); });
  }

  py::ssize_t channels_;
  std::unique_ptr<LrnPlan> plan_;
};

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
  return names;
}

py::list kernel_table() {
  py::list table;
  for (Isa isa : available_isas()) {
    const KernelSet* set = kernel_set(isa);
    for (size_t i = 0; set != nullptr && i < set->n_spmm; ++i) {
      table.append(py::dict(py::arg("name") = set->spmm[i].name, py::arg("isa") = isa_name(isa),
                            py::arg("operation") = "spmm"));
    }
    for (size_t i = 0; set != nullptr && i < set->n_gemv; ++i) {
      table.append(py::dict(py::arg("name") = set->gemv[i].name, py::arg("isa") = isa_name(isa),
                            py::arg("operation") = "gemv"));
    }
    for (size_t i = 0; set != nullptr && i < set->n_depthwise; ++i) {
      table.append(py::dict(py::arg("name") = set->depthwise[i].name, py::arg("isa") = isa_name(isa),
                            py::arg("operation") = "depthwise"));
    }
    for (size_t i = 0; set != nullptr && i < set->n_lrn; ++i) {
      table.append(
          py::dict(py::arg("name") = set->lrn[i].name, py::arg("isa") = isa_name(isa), py::arg("operation") = "lrn"));
    }
  }
  return table;
}

const KernelSet& vector_kernels(const std::string& isa) {
  const KernelSet* set = kernel_set(isa_from_name(isa));
  if (set == nullptr) throw py::value_error("no vector kernels for this");
  return *set;
}

py::dict selected_kernels(const std::string& isa, int64_t r, int64_t c) {
  const KernelSet& set = vector_kernels(isa);
  if (r < 1 || c < 1) throw py::value_error("no vector kernels for this");
  return py::dict(py::arg("spmm") = spmm_kernel(set, r).name, py::arg("gemv") = gemv_kernel(set, r, c).name);
}

template <typename Class>
void define_calls(py::class_<Class>& type) {
  const float infinity = std::numeric_limits<float>::infinity();
  type.def("run", &Class::run, py::arg("X").noconvert(), py::kw_only(), py::arg("bias") = py::none(),
           py::arg("residual") = py::none(), py::arg("activation_min") = -infinity,
           py::arg("activation_max") = infinity, py::arg("activation_gate") = 0, py::arg("threads") = 1,
           "The operators' formula, on its own threads.");
  type.def("time", &Class::time, py::arg("X").noconvert(), py::kw_only(), py::arg("bias") = py::none(),
           py::arg("residual") = py::none(), py::arg("activation_min") = -infinity,
           py::arg("activation_max") = infinity, py::arg("activation_gate") = 0, py::arg("threads") = 1, py::arg("runs") = 1,
           py::arg("seconds") = 0.0,
           "Seconds of each of at least `runs` calls that take at least `seconds` together, after one that does "
           "not count.");
}

PYBIND11_MODULE(_kernels, module) {
  module.doc() = "The kernels of the operators, for tests and benchmarks.";
  module.def("isas", &isa_names, "Names of the instruction sets this machine can run, best last.");
  module.def(
      "chosen_isa", [] { return isa_name(isa_from_name("")); },
      "The instruction set the operators use: the best one, or SCALPEL_ISA.");
  module.def("kernels", &kernel_table,
             "The table of vector kernels this machine can run: name, isa and operation (spmm, gemv, depthwise or lrn) "
             "of each.");
  module.def("selected_kernels", &selected_kernels, py::arg("isa"), py::arg("r"), py::arg("c"),
             "Names of the kernels that run a matrix of r × c groups: spmm (Conv, Gemm of many rows) and gemv.");
  module.def(
      "lanes",
      [](const std::string& isa) {
        const KernelSet* set = kernel_set(isa_from_name(isa));
        return set == nullptr ? 1 : set->lanes;
      },
      py::arg("isa"), "Floats in a vector of the kernels for an instruction set.");
  module.def(
      "peak_flops",
      [](const std::string& isa, size_t threads, double seconds) {
        if (threads == 0) throw py::value_error("threads must be at least 1");
        return peak_flops(vector_kernels(isa), threads, seconds);
      },
      py::call_guard<py::gil_scoped_release>(),
      py::arg("isa"), py::kw_only(), py::arg("threads") = 1, py::arg("seconds") = 0.1,
      "Multiply-adds that touch no memory, in floating-point operations per second: medians of each thread, added up.");
  module.def(
      "bandwidth",
      [](const std::string& isa, size_t bytes, bool copy, size_t threads, double seconds) {
        const KernelSet& set = vector_kernels(isa);
        if (threads == 0) throw py::value_error("threads must be at least 1");
        if (bytes < least_stream_bytes(set)) throw py::value_error("too few bytes to measure with");
        return bandwidth(set, bytes, copy, threads, seconds);
      },
      py::call_guard<py::gil_scoped_release>(),
      py::arg("isa"), py::arg("bytes"), py::kw_only(), py::arg("copy") = false, py::arg("threads") = 1,
      py::arg("seconds") = 0.1,
      "Bytes per second that threads read (copy: read and write as much again) over and over, each in `bytes` of its "
      "own: medians of each, added up.");
  module.def(
      "exchange_bandwidth",
      [](size_t writer_core, size_t reader_core, size_t bytes, size_t rounds) {
        if (bytes < 64 || rounds == 0) throw py::value_error("bytes must be at least 64, rounds at least 1");
        return exchange_bandwidth(writer_core, reader_core, bytes, rounds);
      },
      py::call_guard<py::gil_scoped_release>(), py::arg("writer_core"), py::arg("reader_core"), py::kw_only(),
      py::arg("bytes") = size_t{1} << 19, py::arg("rounds") = 20,
      "Bytes per second at which a core reads what another one has just written: the best of some rounds.");
  module.def(
      "validate",
      [](const py::array& values, const py::array& row_offsets, const py::array& column_indices,
         std::pair<int64_t, int64_t> shape) {
        const std::string problem = validate(view(values, row_offsets, column_indices, shape.first, shape.second));
        if (!problem.empty()) throw py::value_error(problem);
      },
      py::arg("values"), py::arg("row_offsets"), py::arg("column_indices"), py::arg("shape"),
      "Raises ValueError if the arrays do not encode a matrix of this shape (M, K).");

  py::class_<Gemm> gemm(module, "Gemm", "Y[N, M] = X[N, K] · Wᵀ with W in group-CSR.");
  gemm.def(py::init<const py::array&, const py::array&, const py::array&, std::pair<int64_t, int64_t>,
                    const std::optional<Floats>&, const std::string&>(),
           py::arg("values"), py::arg("row_offsets"), py::arg("column_indices"), py::arg("shape"),
           py::arg("row_scale") = py::none(), py::arg("isa") = "",
           "Values are int8 if they have a scale for each row. Raises ValueError if the arrays are inconsistent or the"
           " machine lacks the ISA.");
  define_calls(gemm);

  py::class_<Conv> conv(module, "Conv", "A 1-D or 2-D convolution with W in group-CSR.");
  conv.def(py::init<const py::array&, const py::array&, const py::array&, const std::vector<int64_t>&,
                    const std::vector<int64_t>&, const std::vector<int64_t>&, const std::vector<int64_t>&, int64_t,
                    const std::string&>(),
           py::arg("values"), py::arg("row_offsets"), py::arg("column_indices"), py::arg("weight_shape"),
           py::arg("strides"), py::arg("dilations"), py::arg("pads"), py::arg("group") = 1, py::arg("isa") = "",
           "Raises ValueError if the arrays or the geometry are inconsistent or the machine lacks the ISA.");
  define_calls(conv);

  py::class_<Lrn> lrn(module, "Lrn", "Local response normalisation over windows of channels.");
  lrn.def(py::init<const Int32s&, const Int32s&, const Floats&, float, float, const std::string&>(),
          py::arg("window_begin").noconvert(), py::arg("window_end").noconvert(), py::arg("bias").noconvert(),
          py::arg("alpha"), py::arg("beta"), py::arg("isa") = "",
          "Raises ValueError if the arrays are inconsistent or the machine lacks the ISA.");
  lrn.def("run", &Lrn::run, py::arg("X").noconvert(), py::kw_only(), py::arg("threads") = 1,
          "X / (bias + alpha * sum of squares in the window)^beta, on its own threads.");
  lrn.def("time", &Lrn::time, py::arg("X").noconvert(), py::kw_only(), py::arg("threads") = 1, py::arg("runs") = 1,
          py::arg("seconds") = 0.0,
          "Seconds of each of at least `runs` calls that take at least `seconds` together, after one that does "
          "not count.");

  define_quantized(module);
}

}  // namespace
}  // namespace scalpel
