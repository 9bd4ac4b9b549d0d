// The NEON kernels, of instructions that every AArch64 processor has.
#include "kernels/neon.h"

#include "kernels/generic_copy.h"
#include "kernels/generic_depthwise.h"
#include "kernels/generic_gate.h"
#include "kernels/generic_gemv.h"
#include "kernels/generic_lrn.h"
#include "kernels/generic_peak.h"
#include "kernels/generic_spmm.h"
#include "kernels/generic_stream.h"
#include "kernels/generic_transpose.h"
#include "kernels/simd_neon.h"

namespace scalpel {
namespace {

constexpr SpmmKernel kSpmm[] = {
    {"spmm_8x3_neon", 8, 3, spmm<Neon, 8, 3>},
    {"spmm_4x6_neon", 4, 6, spmm<Neon, 4, 6>},
    {"spmm_2x10_neon", 2, 10, spmm<Neon, 2, 10>},
    {"spmm_1x14_neon", 1, 14, spmm<Neon, 1, 14>},
};

constexpr GemvKernel kGemv[] = {
    gemv_row<NeonPair, GemvLayout::kRowVectors, 8>("gemv_1x8_neon", 6),
    gemv_row<NeonPair, GemvLayout::kColumnVectors, 8>("gemv_8x1_neon", 3),
    gemv_row<Neon, GemvLayout::kRowVectors, 8>("gemv_1x4_neon", 6),
    gemv_row<Neon, GemvLayout::kColumnVectors, 8>("gemv_4x1_neon", 2),
    gemv_row<Neon, GemvLayout::kElements, 4>("gemv_1x1_neon", 2),
};

constexpr DepthwiseKernel kDepthwise[] = {
    {"depthwise_3x3_neon", 3, 1, depthwise<Neon, 3, 1>},
    {"depthwise_3x3/2_neon", 3, 2, depthwise<Neon, 3, 2>},
    {"depthwise_5x5_neon", 5, 1, depthwise<Neon, 5, 1>},
    {"depthwise_5x5/2_neon", 5, 2, depthwise<Neon, 5, 2>},
};

constexpr LrnKernel kLrn[] = {
    {"lrn_0.5_neon", 0.5f, lrn<Neon, LrnPower::kHalf>},
    {"lrn_0.75_neon", 0.75f, lrn<Neon, LrnPower::kThreeQuarters>},
    {"lrn_1_neon", 1.0f, lrn<Neon, LrnPower::kOne>},
};

constexpr KernelSet kSet = {Isa::kNeon,
                            Neon::kLanes,
                            kSpmm,
                            sizeof(kSpmm) / sizeof(*kSpmm),
                            kGemv,
                            sizeof(kGemv) / sizeof(*kGemv),
                            kDepthwise,
                            sizeof(kDepthwise) / sizeof(*kDepthwise),
                            kLrn,
                            sizeof(kLrn) / sizeof(*kLrn),
                            gate<Neon>,
                            transpose<Neon>,
                            copy_plane<Neon>,
                            multiply_add<Neon>,
                            read_stream<Neon>,
                            copy_stream<Neon>};

}  // namespace

const KernelSet& neon_kernels() { return kSet; }

}  // namespace scalpel
