// The kernels of quantized layers on AVX2 alone. Compiled with those instructions enabled:
// nothing here may be called, and no inline function of another header instantiated, without checking that the machine
// has them.
#include "kernels/avx2_quads.h"

#include "kernels/generic_quads_depthwise.h"
#include "kernels/simd_quads_avx2.h"

namespace scalpel {
namespace {

// The instruction that multiplies bytes saturates its sums of two products, so quads are widened to words: the even and
// the odd ones of a quad each make a sum of two.
struct Avx2Words : Avx2Quads {
  struct Weights {
    Int even, odd;
  };
  // The four weights of a step for one of its `Rows` rows.
  template <int Rows>
  static Weights weights(const int8_t* from, int row) {
    return widen(weight_quad(from + row * kQuadBytes));
  }
  static Weights load_weights(const int8_t* from) { return widen(eight_quads(from)); }
  static void dot(Int& sum, Int x, const Weights& w) {
    const Int even = _mm256_and_si256(x, set16(0xff)), odd = _mm256_srli_epi16(x, 8);
    sum = add32(sum, add32(_mm256_madd_epi16(even, w.even), _mm256_madd_epi16(odd, w.odd)));
  }

 private:
  static Weights widen(Int quads) { return {_mm256_srai_epi16(_mm256_slli_epi16(quads, 8), 8), _mm256_srai_epi16(quads, 8)}; }
};

constexpr QuadKernel kQuads[] = {
    quad_kernel<Avx2Words, 16, 2, 2>("quads_16_avx2"), quad_kernel<Avx2Words, 8, 2, 2>("quads_8_avx2"),
    quad_kernel<Avx2Words, 4, 2, 2>("quads_4_avx2"),   quad_kernel<Avx2Words, 2, 2, 2>("quads_2_avx2"),
    quad_kernel<Avx2Words, 1, 1, 1>("quads_1_avx2"),
};

constexpr QuantizedKernels kSet = {"avx2",
                                   Isa::kAvx2,
                                   false,
                                   Avx2Words::kLanes,
                                   kQuads,
                                   sizeof(kQuads) / sizeof(*kQuads),
                                   {depthwise<Avx2Words, QuadStore::kInt32>, depthwise<Avx2Words, QuadStore::kBytes>,
                                    depthwise<Avx2Words, QuadStore::kResidual>},
                                   lay_tile<Avx2Words>,
                                   copy_byte_planes<Avx2Words>,
                                   transpose_bytes<Avx2Words>,
                                   finish<Avx2Words>,
                                   finish_columns<Avx2Words>,
                                   dot_products<Avx2Words>};

}  // namespace

const QuantizedKernels& avx2_quads_kernels() { return kSet; }

}  // namespace scalpel
