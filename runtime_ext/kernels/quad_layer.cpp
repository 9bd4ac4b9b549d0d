#include "kernels/quad_layer.h"

#include <cmath>
#include <cstring>

#include "kernels/quantized_output.h"

namespace scalpel {
namespace {

constexpr int64_t kRowsAtOnce = kMostFinishedRows;  // of what is kept in the first cache until it is finished

constexpr int64_t kMostSum = int64_t{1} << 31;
constexpr float kMostRounded = 2147483000.0f;

bool is_bytes(ElementType type) { return type == ElementType::kUint8 || type == ElementType::kInt8; }

}  // namespace

QuadOutput::QuadOutput(const QuadLayer& layer, const QuantizedInput& X, void* Y, const QuantizedEpilogue& epilogue,
                       uint8_t* workspace)
    : layer_(layer), epilogue_(epilogue), Y_(Y), bias_(reinterpret_cast<int32_t*>(workspace)),
      scale_(reinterpret_cast<float*>(workspace + layer.bytes() / 2)) {
  const bool flips = X.is_signed != layer.kernels.takes_signed;
  flip = flips ? 0x80 : 0;
  fill = static_cast<uint8_t>(static_cast<uint8_t>(X.zero_point) ^ flip);
  const int32_t zero_point = X.zero_point + (flips ? (X.is_signed ? 128 : -128) : 0);
  const int64_t M = layer.matrix.M, padded = layer.padded_rows();
  // The kernels round before they clamp.
  bool fits = true;
  for (int64_t m = 0; m < M; ++m) {
    const auto moved = static_cast<uint32_t>(zero_point) * static_cast<uint32_t>(layer.matrix.row_sums[static_cast<size_t>(m)]);
    bias_[m] = static_cast<int32_t>((epilogue.bias != nullptr ? static_cast<uint32_t>(epilogue.bias[m]) : 0) - moved);
    scale_[m] = epilogue.type == ElementType::kInt32 ? 1.0f : epilogue.scale[m];
    const int64_t most = UINT8_MAX * layer.matrix.row_norms[static_cast<size_t>(m)] + std::abs(int64_t{bias_[m]});
    fits = fits && std::abs(scale_[m]) * static_cast<float>(std::min(most, kMostSum)) < kMostRounded;
  }
  std::fill(bias_ + M, bias_ + padded, 0);
  std::fill(scale_ + M, scale_ + padded, 0.0f);
  const Residual& residual = epilogue.residual;
  store_ = QuadStore::kInt32;
  if (is_bytes(epilogue.type)) {
    const QuantizedRange range(epilogue);
    min_ = static_cast<int32_t>(std::nearbyint(range.min)) + epilogue.zero_point;
    max_ = static_cast<int32_t>(std::nearbyint(range.max)) + epilogue.zero_point;
    if (epilogue.float_bias == nullptr) {
      if (residual.values != nullptr && is_bytes(residual.type)) {
        store_ = QuadStore::kResidual;
        const float quantized = std::max(std::abs(residual.sum_min), std::abs(residual.sum_max)) +
                                std::abs(static_cast<float>(residual.sum_zero_point));
        const float sum = residual.quantizes_sum ? quantized : kMostRounded;
        const float most = std::abs(residual.sum_scale) * sum + 255 * std::abs(residual.scale) + std::abs(residual.offset);
        is_bounded_ = (residual.quantizes_sum || fits) && most < kMostRounded;
      }
      if (residual.values == nullptr && fits) store_ = QuadStore::kBytes;
    }
  }
}

template <typename Pointer>
Pointer QuadOutput::at(Pointer from, ElementType type, int64_t i) {
  if (from == nullptr) return from;
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const uint8_t, uint8_t>;
  return static_cast<Byte*>(from) + i * static_cast<int64_t>(element_size(type));
}

QuadCall QuadOutput::call(const uint8_t* x, const uint32_t* offsets, int64_t pixels, int64_t first_block,
                          int64_t last_block) const {
  QuadCall call{};
  call.begin = layer_.matrix.begin.data();
  call.offsets = offsets;
  call.weights = layer_.matrix.weights.data();
  call.r = layer_.matrix.r;
  call.rows = layer_.matrix.M;
  call.first_block = first_block;
  call.last_block = last_block;
  call.X = x;
  call.tiles = 1;
  call.pixels = pixels;
  call.bias = bias_;
  call.scale = scale_;
  set_store(&call);
  return call;
}

void QuadOutput::set_store(QuadRows* rows) const {
  rows->is_signed = epilogue_.type == ElementType::kInt8;
  rows->zero_point = epilogue_.zero_point;
  rows->min = min_;
  rows->max = max_;
  rows->is_bounded = is_bounded_;
  rows->residual_is_signed = epilogue_.residual.type == ElementType::kInt8;
  rows->sum = epilogue_.residual;
}

void QuadOutput::multiply(const Tiles& tiles, const uint32_t* offsets, int64_t first_block, int64_t last_block,
                          int64_t ldy, int64_t first) const {
  const int64_t pixels = tiles.pixels;
  const int64_t height = layer_.matrix.height, vectors = (pixels - 1) / layer_.kernels.vector_pixels;
  const auto run = layer_.kernel.spmm[static_cast<int>(store_)][vectors];
  QuadCall part = call(tiles.x, offsets, pixels, first_block, last_block);
  if (store_ != QuadStore::kInt32 || epilogue_.type == ElementType::kInt32) {
    const int64_t i = first + first_block * height * ldy;
    part.Y = at(Y_, epilogue_.type, i);
    part.residual = at(epilogue_.residual.values, epilogue_.residual.type, i);
    part.ldy = ldy;
    part.tiles = tiles.count;
    part.ld_x = tiles.ld_x;
    return run(part);
  }
  alignas(64) int32_t sums[kRowsAtOnce * kMostTilePixels];
  part.Y = sums;
  part.ldy = kMostTilePixels;
  for (int64_t tile = 0; tile < tiles.count; ++tile, part.X += tiles.ld_x) {
    for (int64_t block = first_block; block < last_block; block += kRowsAtOnce / height) {
      part.first_block = block;
      part.last_block = std::min(block + kRowsAtOnce / height, last_block);
      run(part);
      const int64_t last_row = std::min(part.last_block * height, layer_.matrix.M);
      for (int64_t m = block * height; m < last_row; ++m) {
        finish_row(sums + (m - block * height) * kMostTilePixels, pixels, m, first + m * ldy + tile * pixels);
      }
    }
  }
}

void QuadOutput::multiply_transposed(const uint8_t* x, const uint32_t* offsets, int64_t pixels, int64_t first_block,
                                     int64_t last_block, int64_t first) const {
  const int64_t M = layer_.matrix.M, height = layer_.matrix.height;
  const QuadStore store = store_ == QuadStore::kInt32 ? QuadStore::kLanes : store_;
  const auto run = layer_.kernel.spmm[static_cast<int>(store)][(pixels - 1) / layer_.kernels.vector_pixels];
  alignas(64) int32_t product[kRowsAtOnce * kMostTilePixels];
  alignas(64) uint8_t residual[kRowsAtOnce * kMostTilePixels];
  QuadCall part = call(x, offsets, pixels, first_block, last_block);
  part.Y = product;
  part.residual = residual;
  part.ldy = kMostTilePixels;
  for (int64_t block = first_block; block < last_block; block += kRowsAtOnce / height) {
    part.first_block = block;
    part.last_block = std::min(block + kRowsAtOnce / height, last_block);
    const int64_t m = block * height, rows = std::min(part.last_block * height, M) - m, i = first + m;
    if (store_ == QuadStore::kResidual) {
      layer_.kernels.transpose_bytes({static_cast<const uint8_t*>(epilogue_.residual.values) + i, pixels, rows, M,
                                      residual, kMostTilePixels, kMostTilePixels, 0});
    }
    run(part);
    if (store != QuadStore::kLanes) {
      layer_.kernels.transpose_bytes({reinterpret_cast<const uint8_t*>(product), rows, pixels, kMostTilePixels,
                                      static_cast<uint8_t*>(Y_) + i, M, rows, 0});
      continue;
    }
    layer_.kernels.finish_columns({product, rows, pixels, scale_ + m,
                                   epilogue_.float_bias != nullptr ? epilogue_.float_bias + m : nullptr,
                                   at(epilogue_.residual.values, epilogue_.residual.type, i), at(Y_, epilogue_.type, i), M,
                                   &epilogue_});
  }
}

void QuadOutput::multiply_channels(const QuadDepthwiseCall& given, int64_t first_row, int64_t pixels,
                                   int64_t first) const {
  const auto run = layer_.kernels.depthwise[static_cast<int>(store_)];
  QuadDepthwiseCall call = given;
  set_store(&call);
  if (store_ != QuadStore::kInt32 || epilogue_.type == ElementType::kInt32) {
    const int64_t i = first + first_row * pixels;
    call.bias = bias_ + first_row;
    call.scale = scale_ + first_row;
    call.pixels = pixels;
    call.ldy = pixels;
    call.Y = at(Y_, epilogue_.type, i);
    call.residual = at(epilogue_.residual.values, epilogue_.residual.type, i);
    return run(call);
  }
  alignas(64) int32_t sums[kMostTilePixels];
  const int64_t tile = 4 * layer_.kernels.vector_pixels, rows = given.channels * given.rows_of_channel;
  call.channels = call.rows_of_channel = 1;
  call.Y = sums;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t m = first_row + row;
    call.bias = bias_ + m;
    call.scale = scale_ + m;
    call.weights = given.weights + row * round_up_taps(given.taps);
    for (int64_t begin = 0; begin < pixels; begin += tile) {
      call.X = given.X + row / given.rows_of_channel * given.ld_x + begin;
      call.masks = given.masks + begin / tile;
      call.pixels = std::min(tile, pixels - begin);
      run(call);
      finish_row(sums, call.pixels, m, first + m * pixels + begin);
    }
  }
}

void QuadOutput::finish_row(const int32_t* sums, int64_t pixels, int64_t m, int64_t i) const {
  layer_.kernels.finish({sums, pixels, scale_ + m, epilogue_.float_bias != nullptr ? epilogue_.float_bias + m : nullptr, 0,
                         at(epilogue_.residual.values, epilogue_.residual.type, i), at(Y_, epilogue_.type, i), &epilogue_});
}

void QuadOutput::multiply_vector(const uint8_t* x, const uint16_t* narrow_columns, int64_t first_block,
                                 int64_t last_block, int64_t first, int32_t* sums) const {
  const QuadMatrix& matrix = layer_.matrix;
  const int64_t m = first_block * matrix.height, rows = std::min(last_block * matrix.height, matrix.M) - m;
  if (rows <= 0) return;
  layer_.kernel.gemv({matrix.begin.data(), narrow_columns, matrix.columns.data(), matrix.weights.data(), matrix.r,
                      first_block, last_block, x, bias_, sums});
  const int64_t i = first + m;
  if (epilogue_.type == ElementType::kInt32) {
    std::memcpy(static_cast<int32_t*>(Y_) + i, sums + m, static_cast<size_t>(rows) * sizeof(int32_t));
    return;
  }
  layer_.kernels.finish({sums + m, rows, scale_ + m, epilogue_.float_bias != nullptr ? epilogue_.float_bias + m : nullptr,
                         1, at(epilogue_.residual.values, epilogue_.residual.type, i), at(Y_, epilogue_.type, i),
                         &epilogue_});
}

const QuadKernel& quad_kernel(const QuantizedKernels& kernels, int64_t r) {
  size_t i = 0;
  while (r % kernels.quads[i].height != 0) ++i;
  return kernels.quads[i];
}

}  // namespace scalpel
