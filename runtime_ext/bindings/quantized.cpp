#include "bindings/quantized.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/machine_rates.h"
#include "bindings/thread_pool.h"
#include "bindings/time_calls.h"
#include "bindings/workspace.h"
#include "dispatch/kernel_sets.h"
#include "kernels/quantized.h"

namespace scalpel {
namespace {

ElementType element_type(const py::dtype& dtype) {
  const auto name = dtype.attr("name").cast<std::string>();
  if (name == "uint8") return ElementType::kUint8;
  if (name == "int8") return ElementType::kInt8;
  if (name == "int32") return ElementType::kInt32;
  if (name == "float32") return ElementType::kFloat32;
  throw py::value_error("no layer takes or gives " + name);
}

void require_contiguous(const py::array& array, const char* what) {
  if ((array.flags() & py::array::c_style) == 0) throw py::value_error(std::string(what) + " must be contiguous");
}

// By the name of an instruction set or of the kernels themselves; null: the scalar reference.
const QuantizedKernels* kernels_from_name(const std::string& name) {
  for (const QuantizedKernels* kernels : available_quantized_kernels()) {
    if (name == kernels->name) return kernels;
  }
  return quantized_kernels(isa_from_name(name));
}

// A QuantizedEpilogue and the arrays it points to.
struct Output {
  Output(const py::object& dtype_, std::optional<Int32s> bias_, std::optional<Floats> scale_,
         std::optional<Floats> float_bias_, int32_t zero_point, float min, float max, std::optional<py::array> residual_,
         float residual_scale, float residual_offset, bool residual_is_first, float sum_scale,
         std::optional<std::tuple<float, float, int32_t>> sum_quantization)
      : dtype(py::dtype::from_args(dtype_)), bias(std::move(bias_)), scale(std::move(scale_)), float_bias(std::move(float_bias_)),
        residual(std::move(residual_)) {
    epilogue.type = element_type(dtype);
    if (bias) epilogue.bias = bias->data();
    if (scale) epilogue.scale = scale->data();
    if (float_bias) epilogue.float_bias = float_bias->data();
    if (!scale && epilogue.type != ElementType::kInt32) throw py::value_error("only int32 needs no scale");
    epilogue.zero_point = zero_point;
    epilogue.min = min;
    epilogue.max = max;
    Residual& added = epilogue.residual;
    if (residual) {
      require_contiguous(*residual, "residual");
      added.values = residual->data();
      added.type = element_type(residual->dtype());
      if (added.type == ElementType::kInt32) throw py::value_error("residual must be uint8, int8 or float32");
    }
    added.is_first = residual_is_first;
    added.scale = residual_scale;
    added.offset = residual_offset;
    added.sum_scale = sum_scale;
    if (sum_quantization) {
      added.quantizes_sum = true;
      std::tie(added.sum_min, added.sum_max, added.sum_zero_point) = *sum_quantization;
    }
  }

  void check(int64_t M, const std::vector<py::ssize_t>& shape) const {
    if (bias) require_shape(*bias, {M}, "bias");
    if (scale) require_shape(*scale, {M}, "scale");
    if (float_bias) require_shape(*float_bias, {M}, "float_bias");
    if (residual) require_shape(*residual, shape, "residual");
  }

  py::dtype dtype;
  std::optional<Int32s> bias;
  std::optional<Floats> scale, float_bias;
  std::optional<py::array> residual;
  QuantizedEpilogue epilogue;
};

QuantizedInput input(const py::array& X, int32_t zero_point) {
  require_contiguous(X, "X");
  const ElementType type = element_type(X.dtype());
  if (type != ElementType::kUint8 && type != ElementType::kInt8) throw py::value_error("X must be uint8 or int8");
  return {X.data(), type == ElementType::kInt8, zero_point};
}

// A plan of either operation with the shape arithmetic around it.
template <typename Plan>
class Runner {
 public:
  virtual ~Runner() = default;

  py::array run(const py::array& X, const Output& output, int32_t x_zero_point, size_t threads) const {
    py::array Y(output.dtype, output_shape(X));
    call(X, output, x_zero_point, threads, Y.mutable_data(), [](const auto& once) { once(); });
    return Y;
  }

  std::vector<double> time(const py::array& X, const Output& output, int32_t x_zero_point, size_t threads, size_t runs,
                           double seconds) const {
    const std::vector<py::ssize_t> shape = output_shape(X);
    const size_t size = std::accumulate(shape.begin(), shape.end(), size_t{1}, std::multiplies<>());
    const Workspace Y = allocate(static_cast<size_t>(output.dtype.itemsize()) * size);
    std::vector<double> times;
    call(X, output, x_zero_point, threads, Y.get(), [&](const auto& once) { times = time_calls(once, runs, seconds); });
    return times;
  }

 protected:
  virtual std::vector<py::ssize_t> output_shape(const py::array& X) const = 0;
  virtual size_t workspace_bytes(const std::vector<py::ssize_t>& shape) const = 0;
  virtual void run_plan(const QuantizedInput& X, const std::vector<py::ssize_t>& shape, void* Y,
                        const QuantizedEpilogue& epilogue, void* workspace, const Parallel& parallel) const = 0;

  std::unique_ptr<Plan> plan_;
  int64_t M_ = 0;

 private:
  template <typename Repeat>
  void call(const py::array& X, const Output& output, int32_t x_zero_point, size_t threads, void* Y,
            const Repeat& repeat) const {
    output.check(M_, output_shape(X));
    const QuantizedInput x = input(X, x_zero_point);
    const std::vector<py::ssize_t> shape(X.shape(), X.shape() + X.ndim());
    const Workspace workspace = allocate(workspace_bytes(shape));
    const py::gil_scoped_release release;
    ThreadPool pool(threads);
    const Parallel parallel = pool.parallel();
    repeat([&] { run_plan(x, shape, Y, output.epilogue, workspace.get(), parallel); });
  }
};

class QuantizedGemm final : public Runner<QuantizedGemmPlan> {
 public:
  QuantizedGemm(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
                std::pair<int64_t, int64_t> shape, const std::string& isa) {
    std::string error;
    plan_ = make_quantized_gemm_plan(int8_view(values, row_offsets, column_indices, shape.first, shape.second),
                                     kernels_from_name(isa), &error);
    if (plan_ == nullptr) throw py::value_error(error);
    M_ = shape.first;
    K_ = shape.second;
  }

 protected:
  std::vector<py::ssize_t> output_shape(const py::array& X) const override {
    if (X.ndim() != 2 || X.shape(1) != K_) throw py::value_error("X must be [N, " + std::to_string(K_) + "]");
    return {X.shape(0), M_};
  }
  size_t workspace_bytes(const std::vector<py::ssize_t>& shape) const override {
    return plan_->workspace_bytes(shape[0]);
  }
  void run_plan(const QuantizedInput& X, const std::vector<py::ssize_t>& shape, void* Y,
                const QuantizedEpilogue& epilogue, void* workspace, const Parallel& parallel) const override {
    plan_->run(X, shape[0], Y, epilogue, workspace, parallel);
  }

 private:
  int64_t K_;
};

class QuantizedConv final : public Runner<QuantizedConvPlan> {
 public:
  QuantizedConv(const py::array& values, const py::array& row_offsets, const py::array& column_indices,
                const std::vector<int64_t>& weight_shape, const std::vector<int64_t>& strides,
                const std::vector<int64_t>& dilations, const std::vector<int64_t>& pads, int64_t group,
                const std::string& isa) {
    const ConvGeometry geometry = conv_geometry(weight_shape, strides, dilations, pads, group);
    spatial_ = weight_shape.size() - 2;
    channels_ = geometry.in_channels;
    M_ = weight_shape[0];
    const int64_t K = weight_shape[1] * geometry.kernel[0] * geometry.kernel[1];
    std::string error;
    plan_ = make_quantized_conv_plan(int8_view(values, row_offsets, column_indices, M_, K), geometry,
                                     kernels_from_name(isa), &error);
    if (plan_ == nullptr) throw py::value_error(error);
  }

 protected:
  std::vector<py::ssize_t> output_shape(const py::array& X) const override {
    if (static_cast<size_t>(X.ndim()) != spatial_ + 2 || X.shape(1) != channels_) {
      throw py::value_error("X must be [N, " + std::to_string(channels_) + ", spatial...]");
    }
    int64_t out_h, out_w;
    if (!plan_->output_size(spatial_ == 2 ? X.shape(2) : 1, X.shape(X.ndim() - 1), &out_h, &out_w)) {
      throw py::value_error("the padded input is smaller than the kernel");
    }
    std::vector<py::ssize_t> shape{X.shape(0), M_};
    if (spatial_ == 2) shape.push_back(out_h);
    shape.push_back(out_w);
    return shape;
  }
  size_t workspace_bytes(const std::vector<py::ssize_t>& shape) const override {
    return plan_->workspace_bytes(shape[0], height(shape), shape.back());
  }
  void run_plan(const QuantizedInput& X, const std::vector<py::ssize_t>& shape, void* Y,
                const QuantizedEpilogue& epilogue, void* workspace, const Parallel& parallel) const override {
    plan_->run(X, shape[0], height(shape), shape.back(), Y, epilogue, workspace, parallel);
  }

 private:
  int64_t height(const std::vector<py::ssize_t>& shape) const { return spatial_ == 2 ? shape[2] : 1; }

  size_t spatial_;
  int64_t channels_;
};

template <typename Class>
void define_calls(py::class_<Class>& type) {
  type.def("run", &Class::run, py::arg("X").noconvert(), py::arg("output"), py::kw_only(), py::arg("x_zero_point") = 0,
           py::arg("threads") = 1, "The product of uint8 or int8 activations as the output says, on its own threads.");
  type.def("time", &Class::time, py::arg("X").noconvert(), py::arg("output"), py::kw_only(),
           py::arg("x_zero_point") = 0, py::arg("threads") = 1, py::arg("runs") = 1, py::arg("seconds") = 0.0,
           "Seconds of each of at least `runs` calls that take at least `seconds` together, after one that does "
           "not count.");
}

}  // namespace

void define_quantized(py::module_& module) {
  module.def(
      "quantized_kernels",
      [] {
        py::list table;
        for (const QuantizedKernels* kernels : available_quantized_kernels()) {
          for (size_t i = 0; i < kernels->n_quads; ++i) {
            table.append(py::dict(py::arg("name") = kernels->quads[i].name, py::arg("set") = kernels->name,
                                  py::arg("isa") = isa_name(kernels->isa)));
          }
        }
        return table;
      },
      "The table of kernels of quantized layers this machine can run, best set last: name, set and isa of each. The "
      "name of a set stands for that of an instruction set in QuantizedGemm and QuantizedConv.");
  module.def(
      "peak_int8_ops",
      [](const std::string& isa, size_t threads, double seconds) {
        const QuantizedKernels* kernels = kernels_from_name(isa);
        if (kernels == nullptr || threads == 0) throw py::value_error("no vector kernels, or no threads, for this");
        return peak_int8_ops(*kernels, threads, seconds);
      },
      py::call_guard<py::gil_scoped_release>(), py::arg("isa"), py::kw_only(), py::arg("threads") = 1,
      py::arg("seconds") = 0.1,
      "Dot products of int8 that touch no memory, in operations per second, two for each product: medians of each "
      "thread, added up.");
  const float infinity = std::numeric_limits<float>::infinity();
  py::class_<Output>(module, "QuantizedOutput",
                     "What a quantized layer makes of its sums: QuantizedEpilogue in kernels/quantized.h.")
      .def(py::init<const py::object&, std::optional<Int32s>, std::optional<Floats>, std::optional<Floats>, int32_t,
                    float, float, std::optional<py::array>, float, float, bool, float,
                    std::optional<std::tuple<float, float, int32_t>>>(),
           py::arg("dtype"), py::kw_only(), py::arg("bias").noconvert() = py::none(),
           py::arg("scale").noconvert() = py::none(), py::arg("float_bias").noconvert() = py::none(),
           py::arg("zero_point") = 0, py::arg("activation_min") = -infinity, py::arg("activation_max") = infinity,
           py::arg("residual").noconvert() = py::none(), py::arg("residual_scale") = 1.0f,
           py::arg("residual_offset") = 0.0f, py::arg("residual_is_first") = false, py::arg("sum_scale") = 1.0f,
           py::arg("sum_quantization") = py::none(),
           "sum_quantization: bounds and zero point of the sum before the residual is added.");

  py::class_<QuantizedGemm> gemm(module, "QuantizedGemm", "Y[N, M] = X[N, K] · Wᵀ with W of int8 in group-CSR.");
  gemm.def(py::init<const py::array&, const py::array&, const py::array&, std::pair<int64_t, int64_t>,
                    const std::string&>(),
           py::arg("values"), py::arg("row_offsets"), py::arg("column_indices"), py::arg("shape"),
           py::arg("isa") = "", "Raises ValueError if the arrays are inconsistent or the machine lacks the ISA.");
  define_calls(gemm);

  py::class_<QuantizedConv> conv(module, "QuantizedConv", "A 1-D or 2-D convolution with W of int8 in group-CSR.");
  conv.def(py::init<const py::array&, const py::array&, const py::array&, const std::vector<int64_t>&,
                    const std::vector<int64_t>&, const std::vector<int64_t>&, const std::vector<int64_t>&, int64_t,
                    const std::string&>(),
           py::arg("values"), py::arg("row_offsets"), py::arg("column_indices"), py::arg("weight_shape"),
           py::arg("strides"), py::arg("dilations"), py::arg("pads"), py::arg("group") = 1, py::arg("isa") = "",
           "Raises ValueError if the arrays or the geometry are inconsistent or the machine lacks the ISA.");
  define_calls(conv);
}

}  // namespace scalpel
