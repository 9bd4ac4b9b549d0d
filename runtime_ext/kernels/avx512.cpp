// The AVX-512 kernels. Compiled with those instructions enabled: nothing here may be called, and no inline
// function of another header instantiated, without checking that the machine has them.
#include "kernels/avx512.h"

#include "kernels/generic_tables.h"
#include "kernels/simd_avx512.h"

namespace scalpel {
namespace {

constexpr SpmmKernel kSpmm[] = {
    {"spmm_8x3", 8, 3, spmm<Avx512, 8, 3>},
    {"spmm_4x6", 4, 6, spmm<Avx512, 4, 6>},
    {"spmm_2x6", 2, 6, spmm<Avx512, 2, 6>},
    {"spmm_1x14", 1, 14, spmm<Avx512, 1, 14>},
};

constexpr GemvKernel kGemv[] = {
    gemv_row<Avx512, GemvLayout::kRowVectors, 8>("gemv_1x16", 7),
    gemv_row<Avx512, GemvLayout::kColumnVectors, 8>("gemv_16x1", 5),
    gemv_row<Avx2, GemvLayout::kRowVectors, 8>("gemv_1x8", 7),
    gemv_row<Avx2, GemvLayout::kColumnVectors, 8>("gemv_8x1", 3),
    gemv_row<Avx2Half, GemvLayout::kColumnVectors, 8>("gemv_4x1", 2),
    gemv_row<Avx512, GemvLayout::kElements, 16>("gemv_1x1", 2),
};

constexpr KernelSet kSet = kernel_set<Avx512>(Isa::kAvx512, kSpmm, kGemv);

}  // namespace

const KernelSet& avx512_kernels() { return kSet; }

}  // namespace scalpel
