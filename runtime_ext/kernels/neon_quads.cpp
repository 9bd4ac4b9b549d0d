// The kernels of quantized layers on NEON alone, of instructions that every AArch64 processor has.
#include "kernels/neon_quads.h"

#include "kernels/generic_quads_depthwise.h"
#include "kernels/simd_quads_neon.h"

namespace scalpel {
namespace {

// The instruction that adds neighbouring products to a sum takes two of them, so the lower half of a vector holds the
// first two bytes of four quads, the upper half the other two. One product of bytes fits into 16 bits, a sum of two need
// not.
struct NeonPairs : NeonQuads {
  static Int quads_low(Int ab, Int cd) {
    return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(ab), vreinterpretq_s64_s32(cd)));
  }
  static Int quads_high(Int ab, Int cd) {
    return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(ab), vreinterpretq_s64_s32(cd)));
  }
  template <int Height>
  static Int spread(const uint32_t* quads) {
    return vreinterpretq_s32_s8(split(vreinterpretq_s8_s32(NeonQuads::spread<Height>(quads))));
  }

  template <int Rows>
  static int8x16_t weights(const int8_t* from, int row) {
    if constexpr (Rows % 4 == 0) {
      alignas(16) static constexpr uint8_t kBytes[4][16] = {
          {0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3},
          {4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7},
          {8, 9, 8, 9, 8, 9, 8, 9, 10, 11, 10, 11, 10, 11, 10, 11},
          {12, 13, 12, 13, 12, 13, 12, 13, 14, 15, 14, 15, 14, 15, 14, 15},
      };
      return vqtbl1q_s8(vld1q_s8(from + row / 4 * 16), vld1q_u8(kBytes[row % 4]));
    } else {
      int32_t quad;
      __builtin_memcpy(&quad, from + row * kQuadBytes, sizeof quad);
      return split(vreinterpretq_s8_s32(vdupq_n_s32(quad)));
    }
  }
  static int8x16_t load_weights(const int8_t* from) { return split(vld1q_s8(from)); }

  static void dot(Int& sum, Int x, int8x16_t w) {
    const int8x16_t bytes = vreinterpretq_s8_s32(x);
    sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(bytes), vget_low_s8(w)));
    sum = vpadalq_s16(sum, vmull_high_s8(bytes, w));
  }

 private:
  static int8x16_t split(int8x16_t quads) {
    alignas(16) static constexpr uint8_t kBytes[16] = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};
    return vqtbl1q_s8(quads, vld1q_u8(kBytes));
  }
};

constexpr QuadKernel kQuads[] = {
    quad_kernel<NeonPairs, 16, 4, 8>("quads_16_neon"), quad_kernel<NeonPairs, 8, 4, 8>("quads_8_neon"),
    quad_kernel<NeonPairs, 4, 4, 4>("quads_4_neon"),   quad_kernel<NeonPairs, 2, 2, 2>("quads_2_neon"),
    quad_kernel<NeonPairs, 1, 1, 1>("quads_1_neon"),
};

constexpr QuantizedKernels kSet = {"neon",
                                   Isa::kNeon,
                                   true,
                                   NeonPairs::kLanes,
                                   kQuads,
                                   sizeof(kQuads) / sizeof(*kQuads),
                                   {depthwise<NeonPairs, QuadStore::kInt32>, depthwise<NeonPairs, QuadStore::kBytes>,
                                    depthwise<NeonPairs, QuadStore::kResidual>},
                                   lay_tile<NeonPairs>,
                                   copy_byte_planes<NeonPairs>,
                                   transpose_bytes<NeonPairs>,
                                   finish<NeonPairs>,
                                   finish_columns<NeonPairs>,
                                   dot_products<NeonPairs>};

}  // namespace

const QuantizedKernels& neon_quads_kernels() { return kSet; }

}  // namespace scalpel
