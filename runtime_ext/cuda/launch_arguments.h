// The arguments of a launch, but for the pointers to the matrix: shared with the emulation on the host.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "cuda/conv_kernel.h"
#include "cuda/gemm_kernel.h"
#include "kernels/conv_geometry.h"

namespace scalpel {

constexpr int64_t kMostThreadBlocks = std::numeric_limits<int32_t>::max();

// X and Y must not be empty.
inline GemmArguments gemm_arguments(const PackedMatrix& matrix, int team, const float* X, int64_t N,
                                    const float* residual, float* Y) {
  GemmArguments a{};
  const int tile = gemm_tile(matrix, N);
  a.X = X;
  a.residual = residual;
  a.Y = Y;
  a.M = matrix.M;
  a.K = matrix.K;
  a.N = N;
  a.row_blocks = static_cast<int32_t>(matrix.row_blocks());
  a.x_tiles = static_cast<int32_t>((N + tile - 1) / tile);
  a.team = team;
  a.x_is_aligned = matrix.K % 4 == 0 && reinterpret_cast<uintptr_t>(X) % 16 == 0;
  return a;
}

inline ConvArguments conv_arguments(const PackedMatrix& matrix, const ConvGeometry& geometry, const float* X,
                                    int64_t batch, int64_t in_h, int64_t in_w, const float* residual, float* Y) {
  ConvArguments a{};
  a.X = X;
  a.residual = residual;
  a.Y = Y;
  a.M = matrix.M;
  a.group = geometry.group;
  a.rows_per_group = matrix.M / geometry.group;
  a.channels = geometry.in_channels / geometry.group;
  a.batch = batch;
  a.in_h = in_h;
  a.in_w = in_w;
  output_size(geometry, in_h, in_w, &a.out_h, &a.out_w);
  a.stride_h = geometry.strides[0];
  a.stride_w = geometry.strides[1];
  a.pad_top = geometry.pads[0];
  a.pad_left = geometry.pads[1];
  a.pixel_tiles = (batch * a.out_h * a.out_w + kConvThreads - 1) / kConvThreads;
  return a;
}

// Empty if the CUDA kernels can address a matrix, else a sentence that says why they cannot.
inline std::string check_addressable(const GroupCsrView& matrix, const ConvGeometry* geometry) {
  constexpr int64_t kMostRows = int64_t{1} << 24, kMostColumns = int64_t{1} << 26;
  if (matrix.M > kMostRows || matrix.K > kMostColumns) {
    return "a matrix of shape [" + std::to_string(matrix.M) + ", " + std::to_string(matrix.K) +
           "] is too large for the CUDA kernels";
  }
  for (int axis = 0; geometry != nullptr && axis < 2; ++axis) {
    if ((geometry->kernel[axis] - 1) * geometry->dilations[axis] > std::numeric_limits<int32_t>::max()) {
      return "a dilated kernel of more than 2^31 pixels is too large for the CUDA kernels";
    }
  }
  return {};
}

}  // namespace scalpel
