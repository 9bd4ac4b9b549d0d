// Which instruction sets this machine can run, and which of them to use.
#include <cstdlib>

#include "dispatch/kernel_sets.h"

#ifdef SCALPEL_AVX2_QUADS
#include "kernels/avx2_quads.h"
#endif
#ifdef SCALPEL_AVX_VNNI
#include "kernels/avx_vnni.h"
#endif
#ifdef SCALPEL_AVX512_VNNI
#include "kernels/avx512_vnni.h"
#endif
#ifdef SCALPEL_NEON_DOTPROD
#include "kernels/neon_dotprod.h"
#endif
#ifdef SCALPEL_NEON_QUADS
#include "kernels/neon_quads.h"
#endif

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define SCALPEL_X86 1
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace scalpel {
namespace {

#ifdef SCALPEL_X86
struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

// All zero where the processor does not know the leaf.
Registers cpuid(uint32_t leaf, uint32_t part = 0) {
  Registers registers{};
  __get_cpuid_count(leaf, part, &registers.eax, &registers.ebx, &registers.ecx, &registers.edx);
  return registers;
}

// The register state that the operating system saves (XCR0).
uint64_t saved_state() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// With FMA and F16C, which every processor with AVX2 has, but a virtual one can hide.
bool has_avx2() {
  constexpr uint32_t kFma = 1u << 12, kOsXsave = 1u << 27, kAvx = 1u << 28, kF16c = 1u << 29, kAvx2 = 1u << 5;
  constexpr uint32_t kLeaf1 = kFma | kOsXsave | kAvx | kF16c;
  constexpr uint64_t kSseAndAvxState = 0x6;
  return (cpuid(1).ecx & kLeaf1) == kLeaf1 && (cpuid(7).ebx & kAvx2) != 0 &&
         (saved_state() & kSseAndAvxState) == kSseAndAvxState;
}

bool has_avx512() {
  constexpr uint32_t kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31;
  constexpr uint32_t kLeaf7 = kF | kDq | kBw | kVl;
  constexpr uint64_t kMaskAndUpperState = 0xe0;
  return has_avx2() && (cpuid(7).ebx & kLeaf7) == kLeaf7 &&
         (saved_state() & kMaskAndUpperState) == kMaskAndUpperState;
}

// With BMI2, which every processor with it has, but a virtual one can hide.
[[maybe_unused]] bool has_avx512_vnni() {
  constexpr uint32_t kVnni = 1u << 11, kBmi2 = 1u << 8;
  return has_avx512() && (cpuid(7).ecx & kVnni) != 0 && (cpuid(7).ebx & kBmi2) != 0;
}

[[maybe_unused]] bool has_avx_vnni() {
  constexpr uint32_t kAvxVnni = 1u << 4;
  return has_avx2() && cpuid(7).eax >= 1 && (cpuid(7, 1).eax & kAvxVnni) != 0;
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif

#if defined(__aarch64__) && defined(__linux__)
bool has_capability(int bit) { return (getauxval(AT_HWCAP) >> bit & 1) != 0; }
bool has_neon() { return has_capability(1); }
[[maybe_unused]] bool has_dotprod() { return has_capability(20); }
#elif defined(__aarch64__)
bool has_neon() { return true; }  // the architecture demands it
[[maybe_unused]] bool has_dotprod() { return false; }
#else
bool has_neon() { return false; }
#endif

}  // namespace

std::vector<const QuantizedKernels*> available_quantized_kernels() {
  std::vector<const QuantizedKernels*> sets;
#ifdef SCALPEL_AVX2_QUADS
  if (has_avx2()) sets.push_back(&avx2_quads_kernels());
#endif
#ifdef SCALPEL_AVX_VNNI
  if (has_avx_vnni()) sets.push_back(&avx_vnni_kernels());
#endif
#ifdef SCALPEL_AVX512_VNNI
  if (has_avx512_vnni()) sets.push_back(&avx512_vnni_kernels());
#endif
#ifdef SCALPEL_NEON_QUADS
  if (has_neon()) sets.push_back(&neon_quads_kernels());
#endif
#ifdef SCALPEL_NEON_DOTPROD
  if (has_dotprod()) sets.push_back(&neon_dotprod_kernels());
#endif
  return sets;
}

const QuantizedKernels* quantized_kernels(Isa isa) {
  // A machine of `isa` has the instructions of all before it in the list of available_isas, too.
  const QuantizedKernels* best = nullptr;
  for (const QuantizedKernels* set : available_quantized_kernels()) {
    if (isa != Isa::kScalar && set->isa <= isa) best = set;
  }
  return best;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas{Isa::kScalar};
  if (has_avx2() && kernel_set(Isa::kAvx2) != nullptr) isas.push_back(Isa::kAvx2);
  if (has_avx512() && kernel_set(Isa::kAvx512) != nullptr) isas.push_back(Isa::kAvx512);
  if (has_neon() && kernel_set(Isa::kNeon) != nullptr) isas.push_back(Isa::kNeon);
  return isas;
}

bool choose_isa(Isa* isa, std::string* error) {
  const std::vector<Isa> isas = available_isas();
  const char* wanted = std::getenv("SCALPEL_ISA");
  if (wanted == nullptr || *wanted == '\0') {
    *isa = isas.back();
    return true;
  }
  std::string names;
  for (Isa candidate : isas) {
    if (std::string(wanted) == isa_name(candidate)) {
      *isa = candidate;
      return true;
    }
    names += names.empty() ? isa_name(candidate) : std::string(", ") + isa_name(candidate);
  }
  *error = "SCALPEL_ISA=" + std::string(wanted) + " cannot run here; this machine has: " + names;
  return false;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kNeon:
      return "neon";
  }
  return "unknown";
}

}  // namespace scalpel
