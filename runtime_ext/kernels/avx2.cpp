// The AVX2 + FMA + F16C kernels. Compiled with those instructions enabled: nothing here may be called, and no inline
// function of another header instantiated, without checking that the machine has them.
#include "kernels/avx2.h"

#include "kernels/generic_tables.h"
#include "kernels/simd_avx2.h"

namespace scalpel {
namespace {

constexpr SpmmKernel kSpmm[] = {
    {"spmm_8x3", 8, 3, spmm<Avx2, 8, 3>},
    {"spmm_4x3", 4, 3, spmm<Avx2, 4, 3>},
    {"spmm_2x5", 2, 5, spmm<Avx2, 2, 5>},
    {"spmm_1x7", 1, 7, spmm<Avx2, 1, 7>},
};

constexpr GemvKernel kGemv[] = {
    gemv_row<Avx2, GemvLayout::kRowVectors, 8>("gemv_1x8", 6),
    gemv_row<Avx2, GemvLayout::kColumnVectors, 8>("gemv_8x1", 3),
    gemv_row<Avx2Half, GemvLayout::kColumnVectors, 8>("gemv_4x1", 2),
    gemv_row<Avx2, GemvLayout::kElements, 8>("gemv_1x1", 2),
};

constexpr KernelSet kSet = kernel_set<Avx2>(Isa::kAvx2, kSpmm, kGemv);

}  // namespace

const KernelSet& avx2_kernels() { return kSet; }

}  // namespace scalpel
