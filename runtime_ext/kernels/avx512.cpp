// The AVX-512 kernels. Compiled with those instructions enabled: nothing here may be called, and no inline
// function of another header instantiated, without checking that the machine has them.
#include "kernels/avx512.h"

#include "kernels/generic_copy.h"
#include "kernels/generic_depthwise.h"
#include "kernels/generic_gate.h"
#include "kernels/generic_gemv.h"
#include "kernels/generic_lrn.h"
#include "kernels/generic_peak.h"
#include "kernels/generic_spmm.h"
#include "kernels/generic_stream.h"
#include "kernels/generic_transpose.h"
#include "kernels/simd_avx512.h"

namespace scalpel {
namespace {

constexpr SpmmKernel kSpmm[] = {
    {"spmm_8x3_avx512", 8, 3, spmm<Avx512, 8, 3>},
    {"spmm_4x6_avx512", 4, 6, spmm<Avx512, 4, 6>},
    {"spmm_2x6_avx512", 2, 6, spmm<Avx512, 2, 6>},
    {"spmm_1x14_avx512", 1, 14, spmm<Avx512, 1, 14>},
};

constexpr GemvKernel kGemv[] = {
    gemv_row<Avx512, GemvLayout::kRowVectors, 8>("gemv_1x16_avx512", 7),
    gemv_row<Avx512, GemvLayout::kColumnVectors, 8>("gemv_16x1_avx512", 5),
    gemv_row<Avx2, GemvLayout::kRowVectors, 8>("gemv_1x8_avx512", 7),
    gemv_row<Avx2, GemvLayout::kColumnVectors, 8>("gemv_8x1_avx512", 3),
    gemv_row<Avx2Half, GemvLayout::kColumnVectors, 8>("gemv_4x1_avx512", 2),
    gemv_row<Avx512, GemvLayout::kElements, 16>("gemv_1x1_avx512", 2),
};

constexpr DepthwiseKernel kDepthwise[] = {
    {"depthwise_3x3_avx512", 3, 1, depthwise<Avx512, 3, 1>},
    {"depthwise_3x3/2_avx512", 3, 2, depthwise<Avx512, 3, 2>},
    {"depthwise_5x5_avx512", 5, 1, depthwise<Avx512, 5, 1>},
    {"depthwise_5x5/2_avx512", 5, 2, depthwise<Avx512, 5, 2>},
};

constexpr LrnKernel kLrn[] = {
    {"lrn_0.5_avx512", 0.5f, lrn<Avx512, LrnPower::kHalf>},
    {"lrn_0.75_avx512", 0.75f, lrn<Avx512, LrnPower::kThreeQuarters>},
    {"lrn_1_avx512", 1.0f, lrn<Avx512, LrnPower::kOne>},
};

constexpr KernelSet kSet = {Isa::kAvx512,
                            Avx512::kLanes,
                            kSpmm,
                            sizeof(kSpmm) / sizeof(*kSpmm),
                            kGemv,
                            sizeof(kGemv) / sizeof(*kGemv),
                            kDepthwise,
                            sizeof(kDepthwise) / sizeof(*kDepthwise),
                            kLrn,
                            sizeof(kLrn) / sizeof(*kLrn),
                            gate<Avx512>,
                            transpose<Avx512>,
                            copy_plane<Avx512>,
                            multiply_add<Avx512>,
                            read_stream<Avx512>,
                            copy_stream<Avx512>};

}  // namespace

const KernelSet& avx512_kernels() { return kSet; }

}  // namespace scalpel
