// Runs a model of one float input and one float output in an ONNX Runtime that is loaded at run time, for a machine
// that is emulated and has no Python:
//   ort_session LIBONNXRUNTIME MODEL X Y LIBSCALPEL_ORT|- OPTIMIZED|- < INPUT > OUTPUT
// X and Y are the names of input and output. LIBSCALPEL_ORT is registered, and the model as the session runs it is written to OPTIMIZED. INPUT is the number of
// dimensions, the dimensions and the values; OUTPUT is the values.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

// Slots of ONNX Runtime's table of functions, which only ever grows at its end.
enum Slot {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSession = 7,
  kRun = 9,
  kCreateSessionOptions = 10,
  kSetOptimizedModelFilePath = 11,
  kSetIntraOpNumThreads = 24,
  kRegisterCustomOpsLibrary = 29,
  kCreateTensorWithData = 49,
  kGetTensorMutableData = 51,
  kGetTensorTypeAndShape = 65,
  kGetTensorShapeElementCount = 64,
  kCreateCpuMemoryInfo = 69,
};
constexpr uint32_t kVersion = 17;

void* const* api;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

// Calls a function of the table that returns a status.
template <typename... Arguments>
void call(Slot slot, Arguments... arguments) {
  auto* function = reinterpret_cast<void* (*)(Arguments...)>(api[slot]);
  if (void* status = function(arguments...)) {
    fail(reinterpret_cast<const char* (*)(void*)>(api[kGetErrorMessage])(status));
  }
}

void read(void* to, size_t size) {
  if (size != 0 && std::fread(to, size, 1, stdin) != 1) fail("the input is too short");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) fail("usage: ort_session LIBONNXRUNTIME MODEL X Y LIBSCALPEL_ORT|- OPTIMIZED|-");
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) fail(dlerror());
  struct Base {
    void* const* (*get_api)(uint32_t version);
  };
  auto* get_base = reinterpret_cast<const Base* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (get_base == nullptr) fail(dlerror());
  api = get_base()->get_api(kVersion);
  if (api == nullptr) fail("this ONNX Runtime is too old");

  uint64_t rank;
  read(&rank, sizeof rank);
  std::vector<int64_t> shape(rank);
  read(shape.data(), rank * sizeof(int64_t));
  size_t size = 1;
  for (int64_t dim : shape) size *= static_cast<size_t>(dim);
  std::vector<float> values(size);
  read(values.data(), size * sizeof(float));

  void *env, *options, *session, *memory, *input, *output = nullptr, *info, *opened;
  constexpr int kWarnings = 2, kArena = 1, kDefaultMemory = 0, kFloat = 1;
  call(kCreateEnv, kWarnings, "ort_session", &env);
  call(kCreateSessionOptions, &options);
  call(kSetIntraOpNumThreads, options, 2);
  if (std::strcmp(argv[5], "-") != 0) call(kRegisterCustomOpsLibrary, options, argv[5], &opened);
  if (std::strcmp(argv[6], "-") != 0) call(kSetOptimizedModelFilePath, options, argv[6]);
  call(kCreateSession, env, argv[2], options, &session);
  call(kCreateCpuMemoryInfo, kArena, kDefaultMemory, &memory);
  call(kCreateTensorWithData, memory, values.data(), size * sizeof(float), shape.data(), shape.size(), kFloat, &input);
  const char* input_names[] = {argv[3]};
  const char* output_names[] = {argv[4]};
  call(kRun, session, static_cast<void*>(nullptr), input_names, &input, size_t{1}, output_names, size_t{1}, &output);
  float* result;
  size_t count;
  call(kGetTensorMutableData, output, &result);
  call(kGetTensorTypeAndShape, output, &info);
  call(kGetTensorShapeElementCount, info, &count);
  std::fwrite(result, sizeof(float), count, stdout);
  return std::fflush(stdout);
}
