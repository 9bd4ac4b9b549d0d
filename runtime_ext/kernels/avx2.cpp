// The AVX2 + FMA + F16C kernels. Compiled with those instructions enabled: nothing here may be called, and no inline
// function of another header instantiated, without checking that the machine has them.
#include "kernels/avx2.h"

#include "kernels/generic_copy.h"
#include "kernels/generic_depthwise.h"
#include "kernels/generic_gate.h"
#include "kernels/generic_gemv.h"
#include "kernels/generic_lrn.h"
#include "kernels/generic_peak.h"
#include "kernels/generic_spmm.h"
#include "kernels/generic_stream.h"
#include "kernels/generic_transpose.h"
#include "kernels/simd_avx2.h"

namespace scalpel {
namespace {

constexpr SpmmKernel kSpmm[] = {
    {"spmm_8x3_avx2", 8, 3, spmm<Avx2, 8, 3>},
    {"spmm_4x3_avx2", 4, 3, spmm<Avx2, 4, 3>},
    {"spmm_2x5_avx2", 2, 5, spmm<Avx2, 2, 5>},
    {"spmm_1x7_avx2", 1, 7, spmm<Avx2, 1, 7>},
};

constexpr GemvKernel kGemv[] = {
    gemv_row<Avx2, GemvLayout::kRowVectors, 8>("gemv_1x8_avx2", 6),
    gemv_row<Avx2, GemvLayout::kColumnVectors, 8>("gemv_8x1_avx2", 3),
    gemv_row<Avx2Half, GemvLayout::kColumnVectors, 8>("gemv_4x1_avx2", 2),
    gemv_row<Avx2, GemvLayout::kElements, 8>("gemv_1x1_avx2", 2),
};

constexpr DepthwiseKernel kDepthwise[] = {
    {"depthwise_3x3_avx2", 3, 1, depthwise<Avx2, 3, 1>},
    {"depthwise_3x3/2_avx2", 3, 2, depthwise<Avx2, 3, 2>},
    {"depthwise_5x5_avx2", 5, 1, depthwise<Avx2, 5, 1>},
    {"depthwise_5x5/2_avx2", 5, 2, depthwise<Avx2, 5, 2>},
};

constexpr LrnKernel kLrn[] = {
    {"lrn_0.5_avx2", 0.5f, lrn<Avx2, LrnPower::kHalf>},
    {"lrn_0.75_avx2", 0.75f, lrn<Avx2, LrnPower::kThreeQuarters>},
    {"lrn_1_avx2", 1.0f, lrn<Avx2, LrnPower::kOne>},
};

constexpr KernelSet kSet = {Isa::kAvx2,
                            Avx2::kLanes,
                            kSpmm,
                            sizeof(kSpmm) / sizeof(*kSpmm),
                            kGemv,
                            sizeof(kGemv) / sizeof(*kGemv),
                            kDepthwise,
                            sizeof(kDepthwise) / sizeof(*kDepthwise),
                            kLrn,
                            sizeof(kLrn) / sizeof(*kLrn),
                            gate<Avx2>,
                            transpose<Avx2>,
                            copy_plane<Avx2>,
                            multiply_add<Avx2>,
                            read_stream<Avx2>,
                            copy_stream<Avx2>};

}  // namespace

const KernelSet& avx2_kernels() { return kSet; }

}  // namespace scalpel
