// The kernels of quantized layers on AVX-512 VNNI. Compiled with those instructions enabled: nothing here may be called,
// and no inline function of another header instantiated, without checking that the machine has them.
#include "kernels/avx512_vnni.h"

#include "kernels/generic_quads_depthwise.h"
#include "kernels/simd_quads_avx512.h"

namespace scalpel {
namespace {

constexpr QuadKernel kQuads[] = {
    quad_kernel<Avx512Vnni, 16, 4, 8>("quads_16_avx512_vnni"), quad_kernel<Avx512Vnni, 8, 4, 8>("quads_8_avx512_vnni"),
    quad_kernel<Avx512Vnni, 4, 4, 4>("quads_4_avx512_vnni"),   quad_kernel<Avx512Vnni, 2, 2, 2>("quads_2_avx512_vnni"),
    quad_kernel<Avx512Vnni, 1, 1, 1>("quads_1_avx512_vnni"),
};

constexpr QuantizedKernels kSet = {"avx512_vnni",
                                   Isa::kAvx512,
                                   false,
                                   Avx512Vnni::kLanes,
                                   kQuads,
                                   sizeof(kQuads) / sizeof(*kQuads),
                                   {depthwise<Avx512Vnni, QuadStore::kInt32>, depthwise<Avx512Vnni, QuadStore::kBytes>,
                                    depthwise<Avx512Vnni, QuadStore::kResidual>},
                                   lay_tile<Avx512Vnni>,
                                   copy_byte_planes<Avx512Vnni>,
                                   transpose_bytes<Avx512Vnni>,
                                   finish<Avx512Vnni>,
                                   finish_columns<Avx512Vnni>,
                                   dot_products<Avx512Vnni>};

}  // namespace

const QuantizedKernels& avx512_vnni_kernels() { return kSet; }

}  // namespace scalpel
