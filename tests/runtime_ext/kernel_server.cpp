// Serves the calls of scalpel_graph._kernels over standard input and output, for a machine that is emulated and has no
// Python: see emulated_kernels.py. A message is a number of fields, each its length and its bytes; numbers are those
// of the machine. All that a kernel reads and writes lies at the edge of a page that must not be touched: in turns right
// after one and right before one.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/thread_pool.h"
#include "dispatch/kernel_sets.h"
#include "kernels/interface.h"

namespace {

using namespace scalpel;

using Field = std::vector<char>;
using Message = std::vector<Field>;

bool read_bytes(void* to, size_t size) { return size == 0 || std::fread(to, size, 1, stdin) == 1; }

bool read_message(Message* message) {
  uint64_t fields;
  if (!read_bytes(&fields, sizeof fields)) return false;
  message->clear();
  for (uint64_t i = 0; i < fields; ++i) {
    uint64_t size;
    if (!read_bytes(&size, sizeof size)) return false;
    Field field(size);
    if (!read_bytes(field.data(), size)) return false;
    message->push_back(std::move(field));
  }
  return true;
}

void write_message(const Message& message) {
  const uint64_t fields = message.size();
  std::fwrite(&fields, sizeof fields, 1, stdout);
  for (const Field& field : message) {
    const uint64_t size = field.size();
    std::fwrite(&size, sizeof size, 1, stdout);
    std::fwrite(field.data(), 1, size, stdout);
  }
  std::fflush(stdout);
}

Field text(const std::string& words) { return {words.begin(), words.end()}; }

template <typename T>
Field bytes(const std::vector<T>& values) {
  const auto* data = reinterpret_cast<const char*>(values.data());
  return {data, data + values.size() * sizeof(T)};
}

// The fields of a request, one after the other.
class Arguments {
 public:
  explicit Arguments(const Message& message) : message_(message) {}

  const Field& next() { return message_.at(at_++); }
  std::string word() {
    const Field& field = next();
    return {field.begin(), field.end()};
  }
  template <typename T>
  std::vector<T> list() {
    const Field& field = next();
    std::vector<T> values(field.size() / sizeof(T));
    if (!field.empty()) std::memcpy(values.data(), field.data(), field.size());
    return values;
  }

 private:
  const Message& message_;
  size_t at_ = 0;
};

// Memory between two pages that must not be touched, at the end of one or at the beginning of the other.
class Guarded {
 public:
  Guarded(size_t size, size_t alignment, bool at_end) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), pages = (size + page - 1) / page;
    bytes_ = (pages + 2) * page;
    memory_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    char* const end = memory_ + (pages + 1) * page;
    if (mprotect(memory_, page, PROT_NONE) != 0 || mprotect(end, page, PROT_NONE) != 0) throw std::bad_alloc();
    data_ = at_end ? end - (size + alignment - 1) / alignment * alignment : memory_ + page;
  }
  Guarded(const Field& content, bool at_end) : Guarded(content, sizeof(float), at_end) {}
  Guarded(const Field& content, size_t alignment, bool at_end) : Guarded(content.size(), alignment, at_end) {
    if (!content.empty()) std::memcpy(data_, content.data(), content.size());
  }
  ~Guarded() { munmap(memory_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  float* floats() const { return as<float>(); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  size_t bytes_;
  char* memory_;
  char* data_;
};

struct Plan {
  std::unique_ptr<GemmPlan> gemm;
  std::unique_ptr<ConvPlan> conv;
  std::unique_ptr<LrnPlan> lrn;
  std::unique_ptr<QuantizedGemmPlan> quantized_gemm;
  std::unique_ptr<QuantizedConvPlan> quantized_conv;
  int64_t M = 0;  // rows of Y, or channels
};

std::map<int64_t, Plan> plans;
int64_t next_plan = 0, runs = 0;

Isa isa_from_name(const std::string& name) {
  for (Isa isa : available_isas()) {
    if (name == isa_name(isa)) return isa;
  }
  throw std::runtime_error("no such instruction set on this machine: " + name);
}

// By the name of an instruction set or of the kernels themselves; null: the scalar reference.
const QuantizedKernels* quantized_kernels_from_name(const std::string& name) {
  for (const QuantizedKernels* kernels : available_quantized_kernels()) {
    if (name == kernels->name) return kernels;
  }
  return quantized_kernels(isa_from_name(name));
}

// What a matrix is made of, in memory of its own.
struct Matrix {
  explicit Matrix(Arguments* arguments) : values(arguments->next()) {
    const std::string type = arguments->word();
    view.value_type = type == "float16"    ? ValueType::kFloat16
                      : type == "bfloat16" ? ValueType::kBfloat16
                      : type == "int8"     ? ValueType::kInt8
                                           : ValueType::kFloat32;
    row_offsets = arguments->list<int32_t>();
    narrow = arguments->list<uint16_t>();
    wide = arguments->list<int32_t>();
    const auto sizes = arguments->list<int64_t>();
    view.M = sizes.at(0);
    view.K = sizes.at(1);
    view.n_groups = sizes.at(2);
    view.r = sizes.at(3);
    view.c = sizes.at(4);
    view.values = values.data();
    view.row_offsets = row_offsets.data();
    view.n_row_offsets = static_cast<int64_t>(row_offsets.size());
    if (wide.empty()) {
      view.columns_u16 = narrow.data();
    } else {
      view.columns_i32 = wide.data();
    }
  }

  const Field& values;
  std::vector<int32_t> row_offsets, wide;
  std::vector<uint16_t> narrow;
  GroupCsrView view;
};

Message keep(Plan plan, bool made, const std::string& error) {
  if (!made) throw std::runtime_error(error);
  plans[next_plan] = std::move(plan);
  return {bytes(std::vector<int64_t>{next_plan++})};
}

Message make_gemm(Arguments arguments) {
  const Isa isa = isa_from_name(arguments.word());
  Matrix matrix(&arguments);
  const auto row_scale = arguments.list<float>();
  matrix.view.row_scale = row_scale.empty() ? nullptr : row_scale.data();
  std::string error;
  Plan plan;
  plan.gemm = make_gemm_plan(matrix.view, isa, &error);
  plan.M = matrix.view.M;
  const bool made = plan.gemm != nullptr;
  return keep(std::move(plan), made, error);
}

ConvGeometry conv_geometry(const std::vector<int64_t>& g) {
  return {g.at(0),
          g.at(1),
          {g.at(2), g.at(3)},
          {g.at(4), g.at(5)},
          {g.at(6), g.at(7)},
          {g.at(8), g.at(9), g.at(10), g.at(11)}};
}

Message make_conv(Arguments arguments) {
  const Isa isa = isa_from_name(arguments.word());
  const Matrix matrix(&arguments);
  const ConvGeometry geometry = conv_geometry(arguments.list<int64_t>());
  std::string error;
  Plan plan;
  plan.conv = make_conv_plan(matrix.view, geometry, isa, &error);
  plan.M = matrix.view.M;
  const bool made = plan.conv != nullptr;
  return keep(std::move(plan), made, error);
}

Message make_quantized_gemm(Arguments arguments) {
  const QuantizedKernels* kernels = quantized_kernels_from_name(arguments.word());
  const Matrix matrix(&arguments);
  std::string error;
  Plan plan;
  plan.quantized_gemm = make_quantized_gemm_plan(matrix.view, kernels, &error);
  plan.M = matrix.view.M;
  const bool made = plan.quantized_gemm != nullptr;
  return keep(std::move(plan), made, error);
}

Message make_quantized_conv(Arguments arguments) {
  const QuantizedKernels* kernels = quantized_kernels_from_name(arguments.word());
  const Matrix matrix(&arguments);
  const ConvGeometry geometry = conv_geometry(arguments.list<int64_t>());
  std::string error;
  Plan plan;
  plan.quantized_conv = make_quantized_conv_plan(matrix.view, geometry, kernels, &error);
  plan.M = matrix.view.M;
  const bool made = plan.quantized_conv != nullptr;
  return keep(std::move(plan), made, error);
}

Message make_lrn(Arguments arguments) {
  const Isa isa = isa_from_name(arguments.word());
  const auto begin = arguments.list<int32_t>(), end = arguments.list<int32_t>();
  const auto bias = arguments.list<float>(), powers = arguments.list<float>();
  LrnView lrn;
  lrn.channels = static_cast<int64_t>(bias.size());
  lrn.window_begin = begin.data();
  lrn.window_end = end.data();
  lrn.bias = bias.data();
  lrn.alpha = powers.at(0);
  lrn.beta = powers.at(1);
  std::string error;
  Plan plan;
  plan.lrn = make_lrn_plan(lrn, isa, &error);
  plan.M = lrn.channels;
  const bool made = plan.lrn != nullptr;
  return keep(std::move(plan), made, error);
}

// X as [N, K], [batch, channels, height, width] or [batch, channels, pixels].
Message run(Arguments arguments) {
  const Plan& plan = plans.at(arguments.list<int64_t>().at(0));
  const auto shape = arguments.list<int64_t>();
  const bool at_end = runs++ % 2 == 1;
  const Guarded X(arguments.next(), at_end);
  const auto threads = static_cast<size_t>(arguments.list<int64_t>().at(0));
  const auto has = arguments.list<int64_t>();
  const Guarded bias(arguments.next(), at_end), residual(arguments.next(), at_end);
  const auto limits = arguments.list<float>();
  const Epilogue epilogue{has.at(0) != 0 ? bias.floats() : nullptr, has.at(1) != 0 ? residual.floats() : nullptr,
                          limits.at(0), limits.at(1), static_cast<Gate>(has.at(2))};
  std::vector<int64_t> out = shape;
  out.at(1) = plan.M;
  if (plan.conv != nullptr && !plan.conv->output_size(shape.at(2), shape.at(3), &out.at(2), &out.at(3))) {
    throw std::runtime_error("the padded input is smaller than the kernel");
  }
  size_t floats = 1;
  for (int64_t size : out) floats *= static_cast<size_t>(size);
  const Guarded Y(floats * sizeof(float), sizeof(float), at_end);
  const size_t workspace_bytes = plan.gemm != nullptr   ? plan.gemm->workspace_bytes(shape.at(0))
                                 : plan.conv != nullptr ? plan.conv->workspace_bytes(shape.at(0), shape.at(2), shape.at(3))
                                                        : 0;
  const Guarded workspace(workspace_bytes, 64, at_end);
  ThreadPool pool(threads);
  if (plan.gemm != nullptr) {
    plan.gemm->run(X.floats(), shape.at(0), Y.floats(), epilogue, workspace.floats(), pool.parallel());
  } else if (plan.conv != nullptr) {
    plan.conv->run(X.floats(), shape.at(0), shape.at(2), shape.at(3), Y.floats(), epilogue, workspace.floats(),
                   pool.parallel());
  } else {
    plan.lrn->run(X.floats(), shape.at(0), shape.at(2), Y.floats(), pool.parallel());
  }
  return {bytes(out), bytes(std::vector<float>(Y.floats(), Y.floats() + floats))};
}

ElementType element_type(const std::string& name) {
  if (name == "uint8") return ElementType::kUint8;
  if (name == "int8") return ElementType::kInt8;
  if (name == "int32") return ElementType::kInt32;
  if (name == "float32") return ElementType::kFloat32;
  throw std::runtime_error("no layer takes or gives " + name);
}

// X as [N, K], or [batch, channels, height, width].
Message run_quantized(Arguments arguments) {
  const Plan& plan = plans.at(arguments.list<int64_t>().at(0));
  const auto shape = arguments.list<int64_t>();
  const bool at_end = runs++ % 2 == 1, is_gemm = plan.quantized_gemm != nullptr;
  const Guarded x(arguments.next(), 1, at_end);
  const bool is_signed = element_type(arguments.word()) == ElementType::kInt8;
  const auto settings = arguments.list<int64_t>();
  const auto threads = static_cast<size_t>(settings.at(0));
  const QuantizedInput X{x.as<void>(), is_signed, static_cast<int32_t>(settings.at(1))};
  QuantizedEpilogue epilogue;
  epilogue.type = element_type(arguments.word());
  epilogue.zero_point = static_cast<int32_t>(settings.at(2));
  const auto limits = arguments.list<float>();
  epilogue.min = limits.at(0);
  epilogue.max = limits.at(1);
  const auto next_of_row = [&] { return Guarded(arguments.next(), at_end); };
  const Guarded bias = next_of_row(), scale = next_of_row(), float_bias = next_of_row();
  if (settings.at(3) != 0) epilogue.bias = bias.as<int32_t>();
  if (settings.at(4) != 0) epilogue.scale = scale.floats();
  if (settings.at(5) != 0) epilogue.float_bias = float_bias.floats();
  Residual& added = epilogue.residual;
  const bool has_residual = settings.at(6) != 0;
  added.type = element_type(arguments.word());
  const Guarded residual(arguments.next(), added.type == ElementType::kFloat32 ? sizeof(float) : 1, at_end);
  if (has_residual) added.values = residual.as<void>();
  added.is_first = settings.at(7) != 0;
  added.scale = limits.at(2);
  added.offset = limits.at(3);
  added.sum_scale = limits.at(4);
  added.quantizes_sum = settings.at(8) != 0;
  added.sum_min = limits.at(5);
  added.sum_max = limits.at(6);
  added.sum_zero_point = static_cast<int32_t>(settings.at(9));
  std::vector<int64_t> out = shape;
  out.at(1) = plan.M;
  if (!is_gemm && !plan.quantized_conv->output_size(shape.at(2), shape.at(3), &out.at(2), &out.at(3))) {
    throw std::runtime_error("the padded input is smaller than the kernel");
  }
  const bool is_bytes = epilogue.type == ElementType::kUint8 || epilogue.type == ElementType::kInt8;
  size_t y_bytes = is_bytes ? 1 : sizeof(float);
  for (int64_t size : out) y_bytes *= static_cast<size_t>(size);
  const Guarded Y(y_bytes, is_bytes ? 1 : sizeof(float), at_end);
  const size_t workspace_bytes = is_gemm ? plan.quantized_gemm->workspace_bytes(shape.at(0))
                                         : plan.quantized_conv->workspace_bytes(shape.at(0), shape.at(2), shape.at(3));
  const Guarded workspace(workspace_bytes, 64, at_end);
  ThreadPool pool(threads);
  if (is_gemm) {
    plan.quantized_gemm->run(X, shape.at(0), Y.as<void>(), epilogue, workspace.as<void>(), pool.parallel());
  } else {
    plan.quantized_conv->run(X, shape.at(0), shape.at(2), shape.at(3), Y.as<void>(), epilogue, workspace.as<void>(),
                             pool.parallel());
  }
  return {bytes(out), Field(Y.as<char>(), Y.as<char>() + y_bytes)};
}

// Name, set and instruction set of each.
Message quantized_kernel_table(Arguments) {
  Message table;
  for (const QuantizedKernels* kernels : available_quantized_kernels()) {
    for (size_t i = 0; i < kernels->n_quads; ++i) {
      for (const char* word : {kernels->quads[i].name, kernels->name, isa_name(kernels->isa)}) table.push_back(text(word));
    }
  }
  return table;
}

// The set that an instruction set stands for, if any.
Message best_quantized_kernels(Arguments arguments) {
  const QuantizedKernels* kernels = quantized_kernels(isa_from_name(arguments.word()));
  return kernels == nullptr ? Message{} : Message{text(kernels->name)};
}

Message drop(Arguments arguments) {
  plans.erase(arguments.list<int64_t>().at(0));
  return {};
}

Message isas(Arguments) {
  Message names;
  for (Isa isa : available_isas()) names.push_back(text(isa_name(isa)));
  return names;
}

Message chosen_isa(Arguments) {
  Isa isa;
  std::string error;
  if (!choose_isa(&isa, &error)) throw std::runtime_error(error);
  return {text(isa_name(isa))};
}

// Name, instruction set and operation of each.
Message kernel_table(Arguments) {
  Message table;
  for (Isa isa : available_isas()) {
    const KernelSet* set = kernel_set(isa);
    const auto append = [&](const auto* kernels, size_t count, const char* operation) {
      for (size_t i = 0; i < count; ++i) {
        for (const char* word : {kernels[i].name, isa_name(isa), operation}) table.push_back(text(word));
      }
    };
    if (set == nullptr) continue;
    append(set->spmm, set->n_spmm, "spmm");
    append(set->gemv, set->n_gemv, "gemv");
    append(set->depthwise, set->n_depthwise, "depthwise");
    append(set->lrn, set->n_lrn, "lrn");
  }
  return table;
}

Message selected_kernels(Arguments arguments) {
  const KernelSet* set = kernel_set(isa_from_name(arguments.word()));
  const auto shape = arguments.list<int64_t>();
  return {text(spmm_kernel(*set, shape.at(0)).name), text(gemv_kernel(*set, shape.at(0), shape.at(1)).name)};
}

}  // namespace

int main() {
  const std::map<std::string, Message (*)(Arguments)> commands{
      {"isas", isas}, {"chosen_isa", chosen_isa}, {"kernels", kernel_table}, {"selected_kernels", selected_kernels},
      {"quantized_kernels", quantized_kernel_table}, {"best_quantized_kernels", best_quantized_kernels},
      {"quantized_gemm", make_quantized_gemm}, {"quantized_conv", make_quantized_conv}, {"run_quantized", run_quantized},
      {"gemm", make_gemm}, {"conv", make_conv}, {"lrn", make_lrn}, {"run", run}, {"drop", drop},
  };
  Message request;
  while (read_message(&request)) {
    Arguments arguments(request);
    const std::string command = arguments.word();
    Message answer;
    try {
      answer = commands.at(command)(arguments);
      answer.insert(answer.begin(), text("done"));
    } catch (const std::exception& error) {
      answer = {text("error"), text(error.what())};
    }
    write_message(answer);
  }
  return 0;
}
