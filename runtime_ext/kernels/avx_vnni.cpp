// The kernels of quantized layers on AVX-VNNI, dot products of 256 bits. Compiled with those instructions enabled:
// nothing here may be called, and no inline function of another header instantiated, without checking that the machine
// has them.
#include "kernels/avx_vnni.h"

#include "kernels/generic_quads_depthwise.h"
#include "kernels/simd_quads_avx2.h"

namespace scalpel {
namespace {

struct AvxVnni : Avx2Quads {
  // The four weights of a step for one of its `Rows` rows.
  template <int Rows>
  static Int weights(const int8_t* from, int row) {
    return weight_quad(from + row * kQuadBytes);
  }
  static Int load_weights(const int8_t* from) { return eight_quads(from); }
  // In assembly, because GCC 12 copies the sums around the intrinsic at every step.
  static void dot(Int& sum, Int x, Int w) { __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w)); }
};

constexpr QuadKernel kQuads[] = {
    quad_kernel<AvxVnni, 16, 2, 2>("quads_16_avx_vnni"), quad_kernel<AvxVnni, 8, 2, 2>("quads_8_avx_vnni"),
    quad_kernel<AvxVnni, 4, 2, 2>("quads_4_avx_vnni"),   quad_kernel<AvxVnni, 2, 2, 2>("quads_2_avx_vnni"),
    quad_kernel<AvxVnni, 1, 1, 1>("quads_1_avx_vnni"),
};

constexpr QuantizedKernels kSet = {"avx_vnni",
                                   Isa::kAvx2,
                                   false,
                                   AvxVnni::kLanes,
                                   kQuads,
                                   sizeof(kQuads) / sizeof(*kQuads),
                                   {depthwise<AvxVnni, QuadStore::kInt32>, depthwise<AvxVnni, QuadStore::kBytes>,
                                    depthwise<AvxVnni, QuadStore::kResidual>},
                                   lay_tile<AvxVnni>,
                                   copy_byte_planes<AvxVnni>,
                                   transpose_bytes<AvxVnni>,
                                   finish<AvxVnni>,
                                   finish_columns<AvxVnni>,
                                   dot_products<AvxVnni>};

}  // namespace

const QuantizedKernels& avx_vnni_kernels() { return kSet; }

}  // namespace scalpel
