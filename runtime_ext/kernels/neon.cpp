// The NEON kernels, of instructions that every AArch64 processor has.
#include "kernels/neon.h"

#include "kernels/generic_tables.h"
#include "kernels/simd_neon.h"

namespace scalpel {
namespace {

constexpr SpmmKernel kSpmm[] = {
    {"spmm_8x3", 8, 3, spmm<Neon, 8, 3>},
    {"spmm_4x6", 4, 6, spmm<Neon, 4, 6>},
    {"spmm_2x10", 2, 10, spmm<Neon, 2, 10>},
    {"spmm_1x14", 1, 14, spmm<Neon, 1, 14>},
};

constexpr GemvKernel kGemv[] = {
    gemv_row<NeonPair, GemvLayout::kRowVectors, 8>("gemv_1x8", 6),
    gemv_row<NeonPair, GemvLayout::kColumnVectors, 8>("gemv_8x1", 3),
    gemv_row<Neon, GemvLayout::kRowVectors, 8>("gemv_1x4", 6),
    gemv_row<Neon, GemvLayout::kColumnVectors, 8>("gemv_4x1", 2),
    gemv_row<Neon, GemvLayout::kElements, 4>("gemv_1x1", 2),
};

constexpr KernelSet kSet = kernel_set<Neon>(Isa::kNeon, kSpmm, kGemv);

}  // namespace

const KernelSet& neon_kernels() { return kSet; }

}  // namespace scalpel
