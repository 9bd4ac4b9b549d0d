// The kernels of quantized layers for every instruction set; see quantized_kernels.h for what they work on.
//
// Included by the translation unit of an instruction set only, compiled without contraction of a * b + c; all of it has
// internal linkage.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/quantized_kernels.h"

namespace scalpel {
namespace {

constexpr int64_t kQuadBytes = 4;

// The sums of a row of a tile, in lanes as the interleaving leaves them: 16 bytes of the vector that four vectors pack to
// are 4 * Vectors pixels.
template <typename S, int Vectors>
void store_sums(const QuadCall& call, const typename S::Int (&sums)[Vectors], int64_t row) {
  constexpr int kGroups = S::kLanes / 4;
  int32_t lanes[Vectors][S::kLanes];
  int32_t* y = static_cast<int32_t*>(call.Y) + row * call.ldy;
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) S::store(lanes[v], sums[v]);
  for (int g = 0; g < kGroups; ++g) {
    for (int v = 0; v < Vectors; ++v) {
      const int64_t first = (g * Vectors + v) * 4, left = call.pixels - first;
      if (left >= 4) {
        __builtin_memcpy(y + first, lanes[v] + g * 4, 16);
      } else {
        for (int64_t i = 0; i < left; ++i) y[first + i] = lanes[v][g * 4 + i];
      }
    }
  }
}

// Rounded sums to bytes of Y.
template <typename S, int Vectors>
[[gnu::always_inline]] inline void store_rounded(const QuadCall& call, const typename S::Int (&rounded)[4],
                                                 int64_t row) {
  const typename S::Int zero_point = S::set16(static_cast<int16_t>(call.zero_point));
  const typename S::Int low = S::add16(S::pack32(rounded[0], rounded[1]), zero_point);
  const typename S::Int high = Vectors > 2 ? S::add16(S::pack32(rounded[2], rounded[3]), zero_point) : low;
  uint8_t* y = static_cast<uint8_t*>(call.Y) + row * call.ldy;
  typename S::Int bytes;
  if (call.is_signed) {
    bytes = S::clamp_signed(S::pack16_signed(low, high), S::set8(call.min), S::set8(call.max));
  } else {
    bytes = S::clamp_unsigned(S::pack16_unsigned(low, high), S::set8(call.min), S::set8(call.max));
  }
  S::template store_tile<Vectors>(y, bytes, call.pixels);
}

template <typename S, int Vectors>
[[gnu::always_inline]] inline void store_bytes(const QuadCall& call, const typename S::Int (&sums)[Vectors],
                                               typename S::Float scale, int64_t row) {
  typename S::Int rounded[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    rounded[v] = v < Vectors ? S::round(S::multiply(S::to_float(sums[v < Vectors ? v : 0]), scale)) : rounded[0];
  }
  store_rounded<S, Vectors>(call, rounded, row);
}

template <typename S, int Vectors>
[[gnu::always_inline]] inline void store_residual(const QuadCall& call, const typename S::Int (&sums)[Vectors],
                                                  typename S::Float scale, int64_t row) {
  using Int = typename S::Int;
  using Float = typename S::Float;
  const Residual& sum = call.sum;
  const uint8_t* from = static_cast<const uint8_t*>(call.residual) + row * call.ldy;
  const Int bytes = S::flip(S::template load_tile<Vectors>(from, call.pixels), call.residual_is_signed ? 0x80 : 0);
  const Float back = S::set(call.residual_is_signed ? -128.0f : 0.0f);
  const Float x_scale = S::set(sum.scale), q_scale = S::set(sum.sum_scale), offset = S::set(sum.offset);
  const Float low = S::set(static_cast<float>(call.min - call.zero_point));
  const Float high = S::set(static_cast<float>(call.max - call.zero_point));
  const Int zero = S::set32(0);
  const Int words[2] = {S::unpack_low8(bytes, zero), S::unpack_high8(bytes, zero)};
  Int rounded[4];
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) {
    const Int wide = v % 2 == 0 ? S::unpack_low16(words[v / 2], zero) : S::unpack_high16(words[v / 2], zero);
    const Float x = S::add(S::to_float(wide), back);
    Float q = S::multiply(S::to_float(sums[v]), scale);
    if (sum.quantizes_sum) {
      q = S::at_most(S::at_least(q, S::set(sum.sum_min)), S::set(sum.sum_max));
      q = S::add(S::to_float(S::round(q)), S::set(static_cast<float>(sum.sum_zero_point)));
    }
    q = sum.is_first ? S::multiply_add(x, x_scale, S::multiply_add(q, q_scale, offset))
                     : S::multiply_add(q, q_scale, S::multiply_add(x, x_scale, offset));
    rounded[v] = S::round(S::at_most(S::at_least(q, low), high));
  }
#pragma GCC unroll 4
  for (int v = Vectors; v < 4; ++v) rounded[v] = rounded[0];
  store_rounded<S, Vectors>(call, rounded, row);
}

// Four rows of a tile as vectors of quads, one for each pixel.
template <typename S, int Vectors>
[[gnu::always_inline]] inline void interleave(const uint8_t* X, const uint32_t* offsets, typename S::Int (&quads)[Vectors]) {
  using Int = typename S::Int;
  const Int a = S::load_row(X + offsets[0]), b = S::load_row(X + offsets[1]);
  const Int c = S::load_row(X + offsets[2]), d = S::load_row(X + offsets[3]);
  const Int ab = S::unpack_low8(a, b), cd = S::unpack_low8(c, d);
  quads[0] = S::unpack_low16(ab, cd);
  if constexpr (Vectors > 1) quads[1] = S::unpack_high16(ab, cd);
  if constexpr (Vectors > 2) {
    const Int ab_high = S::unpack_high8(a, b), cd_high = S::unpack_high8(c, d);
    quads[2] = S::unpack_low16(ab_high, cd_high);
    if constexpr (Vectors > 3) quads[3] = S::unpack_high16(ab_high, cd_high);
  }
}

// Row blocks of `Height` rows, `Rows` of them at a time, times a tile of `Vectors` vectors.
template <typename S, int Height, int Rows, int Vectors, QuadStore kStore>
void multiply_tile(const QuadCall& call) {
  static_assert(Height % Rows == 0, "a row block is cut into whole register tiles");
  using Int = typename S::Int;
  const int64_t blocks_of_group = call.r / Height, first_row = call.first_block * Height;
  int64_t group = call.first_block / blocks_of_group, inside = call.first_block % blocks_of_group;
  const uint8_t* X = call.X;
  for (int64_t block = call.first_block; block < call.last_block; ++block) {
    const int64_t begin = call.begin[group], steps = call.begin[group + 1] - begin;
    const uint32_t* const offsets = call.offsets + begin * kQuadBytes;
    const uint32_t* const end = offsets + steps * kQuadBytes;
    const int8_t* const weights = call.weights + (begin * call.r + inside * steps * Height) * kQuadBytes;
    const int64_t top = block * Height;
    for (int64_t first = 0; first < Height && top + first < call.rows; first += Rows) {
      const int64_t row = top + first;
      Int sums[Rows][Vectors];
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) {
        const Int bias = S::set32(call.bias[row + i]);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) sums[i][v] = bias;
      }
      const int8_t* w = weights + first * kQuadBytes;
      for (const uint32_t* step = offsets; step < end; step += kQuadBytes, w += Height * kQuadBytes) {
        Int x[Vectors];
        interleave<S, Vectors>(X, step, x);
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
          const auto quad = S::weights(w + i * kQuadBytes);
#pragma GCC unroll 4
          for (int v = 0; v < Vectors; ++v) S::dot(sums[i][v], x[v], quad);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) {
        if (row + i >= call.rows) break;
        const int64_t y_row = row + i - first_row;
        if constexpr (kStore == QuadStore::kInt32) {
          store_sums<S, Vectors>(call, sums[i], y_row);
        } else if constexpr (kStore == QuadStore::kBytes) {
          store_bytes<S, Vectors>(call, sums[i], S::broadcast(call.scale + row + i), y_row);
        } else {
          store_residual<S, Vectors>(call, sums[i], S::broadcast(call.scale + row + i), y_row);
        }
      }
    }
    if (++inside == blocks_of_group) {
      inside = 0;
      ++group;
    }
  }
}

// The quads of x that columns [0, 4) of each of `Count` steps are.
template <int Count, typename Column>
[[gnu::always_inline]] inline void gather(const uint8_t* x, const Column* columns, uint32_t (&quads)[Count]) {
#pragma GCC unroll 16
  for (int i = 0; i < Count; ++i) {
    const Column* at = columns + i * kQuadBytes;
    quads[i] = static_cast<uint32_t>(x[at[0]]) | static_cast<uint32_t>(x[at[1]]) << 8 |
               static_cast<uint32_t>(x[at[2]]) << 16 | static_cast<uint32_t>(x[at[3]]) << 24;
  }
}

// Row blocks times a vector. Rows are lanes; where there are more lanes than rows, several steps lie next to each other.
template <typename S, int Height, typename Column>
void multiply_vector(const QuadGemvCall& call, const Column* all_columns) {
  using Int = typename S::Int;
  constexpr int kVectors = Height > S::kLanes ? Height / S::kLanes : 1;  // of a step
  constexpr int kSteps = Height < S::kLanes ? S::kLanes / Height : 1;    // of a vector
  constexpr int kChains = kVectors == 1 ? 4 : 2;
  const int64_t blocks_of_group = call.r / Height;
  int64_t group = call.first_block / blocks_of_group, inside = call.first_block % blocks_of_group;
  for (int64_t block = call.first_block; block < call.last_block; ++block) {
    const int64_t begin = call.begin[group], steps = call.begin[group + 1] - begin;
    const Column* columns = all_columns + begin * kQuadBytes;
    const int8_t* w = call.weights + (begin * call.r + inside * steps * Height) * kQuadBytes;
    Int sums[kChains][kVectors];
    for (auto& chain : sums) {
      for (Int& sum : chain) sum = S::set32(0);
    }
    const auto take = [&](Int(&chain)[kVectors]) __attribute__((always_inline)) {
      uint32_t quads[kSteps];
      gather<kSteps>(call.x, columns, quads);
      const Int x = S::template spread<Height>(quads);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) S::dot(chain[v], x, S::load_weights(w + v * S::kLanes * kQuadBytes));
      columns += kSteps * kQuadBytes;
      w += kSteps * Height * kQuadBytes;
    };
    int64_t step = 0;
    for (; step + kChains * kSteps <= steps; step += kChains * kSteps) {
#pragma GCC unroll 4
      for (int i = 0; i < kChains; ++i) take(sums[i]);
    }
    for (; step + kSteps <= steps; step += kSteps) take(sums[0]);
#pragma GCC unroll 4
    for (int i = 1; i < kChains; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[0][v] = S::add32(sums[0][v], sums[i][v]);
    }
    int32_t totals[kVectors * S::kLanes];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) S::store(totals + v * S::kLanes, S::template fold<Height>(sums[0][v]));
    // Steps that do not fill a vector.
    for (; step < steps; ++step, columns += kQuadBytes, w += Height * kQuadBytes) {
      for (int i = 0; i < Height; ++i) {
        for (int j = 0; j < kQuadBytes; ++j) totals[i] += w[i * kQuadBytes + j] * S::activation(call.x[columns[j]]);
      }
    }
    int32_t* y = call.Y + block * Height;
    const int32_t* bias = call.bias + block * Height;
    for (int i = 0; i < Height; ++i) y[i] = totals[i] + bias[i];
    if (++inside == blocks_of_group) {
      inside = 0;
      ++group;
    }
  }
}

template <typename S, int Height>
void multiply_vector(const QuadGemvCall& call) {
  if (call.narrow_columns != nullptr) {
    multiply_vector<S, Height>(call, call.narrow_columns);
  } else {
    multiply_vector<S, Height>(call, call.columns);
  }
}

// `Rows` at a time of a tile of four vectors, `RestRows` of a lower one.
template <typename S, int Height, int Rows, int RestRows>
constexpr QuadKernel quad_kernel(const char* name) {
  return {name,
          Height,
          {{multiply_tile<S, Height, RestRows, 1, QuadStore::kInt32>, multiply_tile<S, Height, RestRows, 2, QuadStore::kInt32>,
            multiply_tile<S, Height, RestRows, 3, QuadStore::kInt32>, multiply_tile<S, Height, Rows, 4, QuadStore::kInt32>},
           {multiply_tile<S, Height, RestRows, 1, QuadStore::kBytes>, multiply_tile<S, Height, RestRows, 2, QuadStore::kBytes>,
            multiply_tile<S, Height, RestRows, 3, QuadStore::kBytes>, multiply_tile<S, Height, Rows, 4, QuadStore::kBytes>},
           {multiply_tile<S, Height, RestRows, 1, QuadStore::kResidual>,
            multiply_tile<S, Height, RestRows, 2, QuadStore::kResidual>,
            multiply_tile<S, Height, RestRows, 3, QuadStore::kResidual>,
            multiply_tile<S, Height, Rows, 4, QuadStore::kResidual>}},
          multiply_vector<S, Height>};
}

// `count` bytes one by one, where whole vectors would leave the input.
inline void load_some(const TileCall& call, const uint8_t* from, uint64_t mask, int count, uint8_t* to) {
  for (int i = 0; i < count; ++i) {
    to[i] = (mask >> i & 1) != 0 ? static_cast<uint8_t>(from[i] ^ call.flip) : call.fill;
  }
}

template <typename S>
void lay_tile(const TileCall& call) {
  constexpr int kPixels = S::kLanes * 4;
  const int64_t vectors = (call.pixels + S::kLanes - 1) / S::kLanes;
  const auto lay = [&](auto order) __attribute__((always_inline)) {
    constexpr int kVectors = decltype(order)::value;
    for (int64_t i = 0; i < call.rows; ++i) {
      const uint64_t mask = call.masks[(call.taps != nullptr ? call.taps[i] : 0) * call.mask_stride];
      const uint8_t* from = call.from + call.offsets[i];
      uint8_t* to = call.to + i * kPixels;
      if constexpr (S::kHasByteMasks) {
        S::store_row(to, S::template spread_tile<kVectors>(S::load_masked(from, mask, call.flip, call.fill)));
      } else if (from >= call.begin && call.end - from >= kPixels) {
        const auto whole = S::flip(S::load_row(from), call.flip);
        const auto bytes = mask == S::kAllBytes ? whole : S::keep(whole, mask, call.fill);
        S::store_row(to, S::template spread_tile<kVectors>(bytes));
      } else {
        uint8_t bytes[kPixels];
        load_some(call, from, mask, kPixels, bytes);
        S::store_row(to, S::template spread_tile<kVectors>(S::load_row(bytes)));
      }
    }
  };
  switch (vectors) {
    case 1:
      return lay(typename S::template Order<1>{});
    case 2:
      return lay(typename S::template Order<2>{});
    case 3:
      return lay(typename S::template Order<3>{});
    default:
      return lay(typename S::template Order<4>{});
  }
}

template <typename S>
void copy_byte_plane(const BytePlane& plane) {
  constexpr int64_t kPixels = S::kLanes * 4;
  for (int64_t y = 0; y < plane.out_h; ++y) {
    const int64_t in_y = y * plane.stride_h + plane.top;
    const bool inside = in_y >= 0 && in_y < plane.in_h;
    const uint8_t* from = plane.from + in_y * plane.in_w;
    uint8_t* to = plane.to + y * plane.out_w;
    if constexpr (S::kHasByteMasks) {
      // What a row writes past its end the next one writes again.
      if (plane.stride_w <= 2) {
        for (int64_t x = 0; x < plane.out_w; x += kPixels) {
          const int64_t first = x * plane.stride_w + plane.left;
          const auto load = [&](int64_t at) {
            return S::load_masked(from + at, inside ? S::bytes_inside(at, plane.in_w) : 0, plane.flip, plane.fill);
          };
          S::store_row(to + x, plane.stride_w == 1 ? load(first) : S::even(load(first), load(first + kPixels)));
        }
        continue;
      }
    }
    for (int64_t x = 0; x < plane.out_w; ++x) {
      const int64_t in_x = x * plane.stride_w + plane.left;
      const bool is_there = inside && in_x >= 0 && in_x < plane.in_w;
      to[x] = is_there ? static_cast<uint8_t>(from[in_x] ^ plane.flip) : plane.fill;
    }
  }
}

// A block of 16 × 16 is transposed by interleaving its upper with its lower half, four times.
template <typename S>
void transpose_bytes(const ByteTranspose& call) {
  using Bytes = typename S::Bytes;
  constexpr int kBlock = 16;
  for (int64_t i = 0; i < call.rows; i += kBlock) {
    const int64_t rows = call.rows - i < kBlock ? call.rows - i : kBlock;
    const bool has_room = call.room - i >= kBlock;
    int64_t j = 0;
    for (; has_room && j + kBlock <= call.columns; j += kBlock) {
      Bytes v[kBlock];
      const uint8_t* from = call.from + i * call.ld_from + j;
#pragma GCC unroll 16
      for (int row = 0; row < kBlock; ++row) {
        v[row] = row < rows ? S::flip16(S::load16(from + row * call.ld_from), call.flip) : S::zero16();
      }
#pragma GCC unroll 4
      for (int round = 0; round < 4; ++round) {
        Bytes t[kBlock];
#pragma GCC unroll 8
        for (int row = 0; row < kBlock / 2; ++row) {
          t[2 * row] = S::interleave_low16(v[row], v[row + kBlock / 2]);
          t[2 * row + 1] = S::interleave_high16(v[row], v[row + kBlock / 2]);
        }
#pragma GCC unroll 16
        for (int row = 0; row < kBlock; ++row) v[row] = t[row];
      }
      uint8_t* to = call.to + j * call.ld_to + i;
#pragma GCC unroll 16
      for (int row = 0; row < kBlock; ++row) S::store16(to + row * call.ld_to, v[row]);
    }
    for (; j < call.columns; ++j) {
      for (int64_t row = i; row < i + rows; ++row) {
        call.to[j * call.ld_to + row] = static_cast<uint8_t>(call.from[row * call.ld_from + j] ^ call.flip);
      }
    }
  }
}

// Operands of S::kLanes sums, in memory of their own where there are fewer.
template <typename S>
void finish(const FinishCall& call) {
  using Float = typename S::Float;
  constexpr int kLanes = S::kLanes;
  const QuantizedEpilogue& epilogue = *call.epilogue;
  const Residual& residual = epilogue.residual;
  const bool is_float = epilogue.type == ElementType::kFloat32, is_signed = epilogue.type == ElementType::kInt8;
  const float lowest = static_cast<float>((is_signed ? -128 : 0) - epilogue.zero_point);
  const float highest = static_cast<float>((is_signed ? 127 : 255) - epilogue.zero_point);
  const auto within = [&](float bound) { return bound > lowest ? (bound < highest ? bound : highest) : lowest; };
  const Float min = S::set(is_float ? epilogue.min : within(epilogue.min));
  const Float max = S::set(is_float ? epilogue.max : within(epilogue.max));
  for (int64_t first = 0; first < call.count; first += kLanes) {
    const int count = static_cast<int>(call.count - first < kLanes ? call.count - first : kLanes);
    int32_t sums[kLanes] = {};
    float scales[kLanes] = {}, biases[kLanes] = {}, added[kLanes] = {};
    const bool whole = count == kLanes;
    const auto floats = [&](const float* from, float* copy) {
      if (whole) return S::load(from);
      for (int i = 0; i < count; ++i) copy[i] = from[i];
      return S::load(copy);
    };
    const auto by_row = [&](const float* from, float* copy) {
      return call.scale_step == 0 ? S::broadcast(from) : floats(from + first, copy);
    };
    const int32_t* from = call.sums + first;
    if (!whole) {
      for (int i = 0; i < count; ++i) sums[i] = from[i];
      from = sums;
    }
    Float q = S::multiply(S::to_float(S::load32(from)), by_row(call.scale, scales));
    if (call.float_bias != nullptr) q = S::add(q, by_row(call.float_bias, biases));
    if (call.residual != nullptr) {
      if (residual.quantizes_sum) {
        q = S::at_most(S::at_least(q, S::set(residual.sum_min)), S::set(residual.sum_max));
        q = S::add(S::to_float(S::round(q)), S::set(static_cast<float>(residual.sum_zero_point)));
      }
      Float x;
      if (residual.type == ElementType::kFloat32) {
        x = floats(static_cast<const float*>(call.residual) + first, added);
      } else {
        const auto* bytes = static_cast<const uint8_t*>(call.residual) + first;
        for (int i = 0; i < count; ++i) {
          added[i] = residual.type == ElementType::kInt8 ? static_cast<float>(static_cast<int8_t>(bytes[i]))
                                                         : static_cast<float>(bytes[i]);
        }
        x = S::load(added);
      }
      const Float x_scale = S::set(residual.scale), q_scale = S::set(residual.sum_scale), offset = S::set(residual.offset);
      q = residual.is_first ? S::multiply_add(x, x_scale, S::multiply_add(q, q_scale, offset))
                            : S::multiply_add(q, q_scale, S::multiply_add(x, x_scale, offset));
    }
    if (is_float) {
      float* y = static_cast<float*>(call.Y) + first;
      const Float clamped = S::clamp(q, min, max);
      if (whole) {
        S::store(y, clamped);
      } else {
        S::store(scales, clamped);
        for (int i = 0; i < count; ++i) y[i] = scales[i];
      }
    } else {
      S::store(sums, S::round(S::at_most(S::at_least(q, min), max)));
      auto* y = static_cast<uint8_t*>(call.Y) + first;
      for (int i = 0; i < count; ++i) y[i] = static_cast<uint8_t>(sums[i] + epilogue.zero_point);
    }
  }
}

template <typename S>
double dot_products(int64_t rounds, int32_t* result) {
  constexpr int kChains = 12;
  typename S::Int sums[kChains];
  for (auto& sum : sums) sum = S::set32(*result);
  const auto x = S::set32(*result);
  const int8_t quad[kQuadBytes] = {1, 2, 3, 4};
  const auto weights = S::weights(quad);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (auto& sum : sums) S::dot(sum, x, weights);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = S::add32(sums[0], sums[i]);
  int32_t lanes[S::kLanes];
  S::store(lanes, sums[0]);
  *result = lanes[0];
  return static_cast<double>(rounds) * kChains * S::kLanes * kQuadBytes;
}

}  // namespace
}  // namespace scalpel
