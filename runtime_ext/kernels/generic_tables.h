// What the table of every instruction set has: its vectors do for the rest. How many rows and vectors a register tile
// of SpMM takes, and what is worth a GEMV, are its own.
#pragma once

#include <cstddef>

#include "kernels/generic_copy.h"
#include "kernels/generic_depthwise.h"
#include "kernels/generic_gate.h"
#include "kernels/generic_gemv.h"
#include "kernels/generic_lrn.h"
#include "kernels/generic_peak.h"
#include "kernels/generic_spmm.h"
#include "kernels/generic_stream.h"
#include "kernels/generic_transpose.h"
#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

template <typename Vectors>
constexpr DepthwiseKernel kDepthwise[] = {
    {"depthwise_3x3", 3, 1, depthwise<Vectors, 3, 1>},
    {"depthwise_3x3/2", 3, 2, depthwise<Vectors, 3, 2>},
    {"depthwise_5x5", 5, 1, depthwise<Vectors, 5, 1>},
    {"depthwise_5x5/2", 5, 2, depthwise<Vectors, 5, 2>},
};

template <typename Vectors>
constexpr LrnKernel kLrn[] = {
    {"lrn_0.5", 0.5f, lrn<Vectors, LrnPower::kHalf>},
    {"lrn_0.75", 0.75f, lrn<Vectors, LrnPower::kThreeQuarters>},
    {"lrn_1", 1.0f, lrn<Vectors, LrnPower::kOne>},
};

template <typename Vectors, size_t SpmmRows, size_t GemvRows>
constexpr KernelSet kernel_set(Isa isa, const SpmmKernel (&spmm)[SpmmRows], const GemvKernel (&gemv)[GemvRows]) {
  return {isa,
          Vectors::kLanes,
          spmm,
          SpmmRows,
          gemv,
          GemvRows,
          kDepthwise<Vectors>,
          sizeof(kDepthwise<Vectors>) / sizeof(*kDepthwise<Vectors>),
          kLrn<Vectors>,
          sizeof(kLrn<Vectors>) / sizeof(*kLrn<Vectors>),
          gate<Vectors>,
          transpose<Vectors>,
          copy_plane<Vectors>,
          multiply_add<Vectors>,
          read_stream<Vectors>,
          copy_stream<Vectors>};
}

}  // namespace
}  // namespace scalpel
