// The kernels of quantized layers on SDOT, which adds four products to each of four sums. Compiled with that instruction
// enabled: nothing here may be called, and no inline function of another header instantiated, without checking that the
// machine has it.
#include "kernels/neon_dotprod.h"

#include "kernels/generic_quads_depthwise.h"
#include "kernels/simd_quads_neon.h"

namespace scalpel {
namespace {

struct NeonDotprod : NeonQuads {
  static Int quads_low(Int ab, Int cd) { return unpack_low16(ab, cd); }
  static Int quads_high(Int ab, Int cd) { return unpack_high16(ab, cd); }

  // A register holds the weights of four rows; a dot product takes those of one of them.
  struct RowWeights {
    int8x16_t rows;
    int lane;
  };
  template <int Rows>
  static RowWeights weights(const int8_t* from, int row) {
    if constexpr (Rows % 4 == 0) {
      return {vld1q_s8(from + row / 4 * 16), row % 4};
    } else {
      int32_t quad;
      __builtin_memcpy(&quad, from + row * kQuadBytes, sizeof quad);
      return {vreinterpretq_s8_s32(vdupq_n_s32(quad)), 0};
    }
  }
  static int8x16_t load_weights(const int8_t* from) { return vld1q_s8(from); }

  static void dot(Int& sum, Int x, const RowWeights& w) {
    const int8x16_t bytes = vreinterpretq_s8_s32(x);
    switch (w.lane) {  // known at compile time, in a loop that is unrolled
      case 0:
        sum = vdotq_laneq_s32(sum, bytes, w.rows, 0);
        break;
      case 1:
        sum = vdotq_laneq_s32(sum, bytes, w.rows, 1);
        break;
      case 2:
        sum = vdotq_laneq_s32(sum, bytes, w.rows, 2);
        break;
      default:
        sum = vdotq_laneq_s32(sum, bytes, w.rows, 3);
    }
  }
  static void dot(Int& sum, Int x, int8x16_t w) { sum = vdotq_s32(sum, vreinterpretq_s8_s32(x), w); }
};

constexpr QuadKernel kQuads[] = {
    quad_kernel<NeonDotprod, 16, 4, 8>("quads_16_neon_dotprod"), quad_kernel<NeonDotprod, 8, 4, 8>("quads_8_neon_dotprod"),
    quad_kernel<NeonDotprod, 4, 4, 4>("quads_4_neon_dotprod"),   quad_kernel<NeonDotprod, 2, 2, 2>("quads_2_neon_dotprod"),
    quad_kernel<NeonDotprod, 1, 1, 1>("quads_1_neon_dotprod"),
};

constexpr QuantizedKernels kSet = {"neon_dotprod",
                                   Isa::kNeon,
                                   true,
                                   NeonDotprod::kLanes,
                                   kQuads,
                                   sizeof(kQuads) / sizeof(*kQuads),
                                   {depthwise<NeonDotprod, QuadStore::kInt32>, depthwise<NeonDotprod, QuadStore::kBytes>,
                                    depthwise<NeonDotprod, QuadStore::kResidual>},
                                   lay_tile<NeonDotprod>,
                                   copy_byte_planes<NeonDotprod>,
                                   transpose_bytes<NeonDotprod>,
                                   finish<NeonDotprod>,
                                   finish_columns<NeonDotprod>,
                                   dot_products<NeonDotprod>};

}  // namespace

const QuantizedKernels& neon_dotprod_kernels() { return kSet; }

}  // namespace scalpel
