// The table of instruction sets: add one by adding its row here and its translation unit to CMakeLists.txt.
#include "dispatch/kernel_sets.h"

#ifdef SCALPEL_AVX2
#include "kernels/avx2.h"
#endif
#ifdef SCALPEL_AVX512
#include "kernels/avx512.h"
#endif
#ifdef SCALPEL_NEON
#include "kernels/neon.h"
#endif

namespace scalpel {
namespace {

struct Row {
  Isa isa;
  const KernelSet& (*kernels)();
};

constexpr Row kRows[] = {
#ifdef SCALPEL_AVX2
    {Isa::kAvx2, avx2_kernels},
#endif
#ifdef SCALPEL_AVX512
    {Isa::kAvx512, avx512_kernels},
#endif
#ifdef SCALPEL_NEON
    {Isa::kNeon, neon_kernels},
#endif
    {Isa::kScalar, nullptr},
};

}  // namespace

const KernelSet* kernel_set(Isa isa) {
  for (const Row& row : kRows) {
    if (row.isa == isa && row.kernels != nullptr) return &row.kernels();
  }
  return nullptr;
}

}  // namespace scalpel
