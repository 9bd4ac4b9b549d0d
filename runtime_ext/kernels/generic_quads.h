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
void store_sums(const typename S::Int (&sums)[Vectors], int32_t* y, int64_t pixels) {
  constexpr int kGroups = S::kLanes / 4;
  int32_t lanes[Vectors][S::kLanes];
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) S::store(lanes[v], sums[v]);
  for (int g = 0; g < kGroups; ++g) {
    for (int v = 0; v < Vectors; ++v) {
      const int64_t first = (g * Vectors + v) * 4, left = pixels - first;
      if (left >= 4) {
        __builtin_memcpy(y + first, lanes[v] + g * 4, 16);
      } else {
        for (int64_t i = 0; i < left; ++i) y[first + i] = lanes[v][g * 4 + i];
      }
    }
  }
}

// What stores of bytes need, in registers or on the stack: the compiler must take anything else for overwritten by them.
template <typename S>
struct ByteStore {
  using Int = typename S::Int;
  using Float = typename S::Float;

  explicit ByteStore(const QuadRows& call)
      : zero_point(S::set16(static_cast<int16_t>(call.zero_point))), low(S::set8(call.min)), high(S::set8(call.max)),
        pixels(call.pixels), is_signed(call.is_signed), moves(call.zero_point != 0),
        clamps(call.min > (is_signed ? -128 : 0) || call.max < (is_signed ? 127 : 255)) {}

  Int zero_point, low, high;
  int64_t pixels;
  bool is_signed, moves, clamps;

  // Whether all of a whole tile is stored, as uint8 that need no bounds.
  bool is_plain() const { return pixels == S::kLanes * 4 && !is_signed && !clamps; }

  // Sums that were scaled and rounded.
  template <bool kPlain, int Vectors>
  [[gnu::always_inline]] void store(const Int (&rounded)[4], uint8_t* y) const {
    if constexpr (kPlain) {
      const Int low_words = S::add16(S::pack32(rounded[0], rounded[1]), zero_point);
      S::store_row(y, S::pack16_unsigned(low_words, S::add16(S::pack32(rounded[2], rounded[3]), zero_point)));
      return;
    }
    Int words[2] = {S::pack32(rounded[0], rounded[1]), rounded[0]};
    words[1] = Vectors > 2 ? S::pack32(rounded[2], rounded[3]) : words[0];
    if (moves) {
      words[0] = S::add16(words[0], zero_point);
      words[1] = Vectors > 2 ? S::add16(words[1], zero_point) : words[0];
    }
    Int bytes;
    if (is_signed) {
      bytes = S::pack16_signed(words[0], words[1]);
      if (clamps) bytes = S::clamp_signed(bytes, low, high);
    } else {
      bytes = S::pack16_unsigned(words[0], words[1]);
      if (clamps) bytes = S::clamp_unsigned(bytes, low, high);
    }
    S::template store_tile<Vectors>(y, bytes, pixels);
  }

  template <bool kPlain, int Vectors>
  [[gnu::always_inline]] void finish(const Int (&sums)[Vectors], Float scale, uint8_t* y, const uint8_t*) const {
    Int rounded[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      rounded[v] = v < Vectors ? S::round(S::multiply(S::to_float(sums[v < Vectors ? v : 0]), scale)) : rounded[0];
    }
    store<kPlain, Vectors>(rounded, y);
  }
};

template <typename S>
struct ResidualStore : ByteStore<S> {
  using Int = typename S::Int;
  using Float = typename S::Float;

  explicit ResidualStore(const QuadRows& call)
      : ByteStore<S>(call), sum(call.sum), flips(call.residual_is_signed ? 0x80 : 0), is_bounded(call.is_bounded),
        back(S::set(call.residual_is_signed ? -128.0f : 0.0f)), x_scale(S::set(sum.scale)),
        q_scale(S::set(sum.sum_scale)), offset(S::set(sum.offset)),
        min(S::set(static_cast<float>(call.min - call.zero_point))),
        max(S::set(static_cast<float>(call.max - call.zero_point))), sum_min(S::set(sum.sum_min)),
        sum_max(S::set(sum.sum_max)), sum_zero_point(S::set(static_cast<float>(sum.sum_zero_point))),
        is_usual(sum.quantizes_sum && is_bounded && flips == 0) {
    this->clamps = this->clamps && is_bounded;
  }

  Residual sum;
  uint8_t flips;
  bool is_bounded;
  Float back, x_scale, q_scale, offset, min, max, sum_min, sum_max, sum_zero_point;
  bool is_usual;  // a QLinearAdd of uint8

  template <bool kPlain, int Vectors>
  [[gnu::always_inline]] void finish(const Int (&sums)[Vectors], Float scale, uint8_t* y, const uint8_t* from) const {
    if (!is_usual) {
      finish_any<kPlain, Vectors>(sums, scale, y, from);
    } else if (sum.is_first) {
      finish_usual<kPlain, Vectors, true>(sums, scale, y, from);
    } else {
      finish_usual<kPlain, Vectors, false>(sums, scale, y, from);
    }
  }

 private:
  // What `finish_any` does, without its branches.
  template <bool kPlain, int Vectors, bool kFirst>
  [[gnu::always_inline]] void finish_usual(const Int (&sums)[Vectors], Float scale, uint8_t* y, const uint8_t* from) const {
    const Int bytes = S::template load_tile<Vectors>(from, this->pixels), zero = S::set32(0);
    const Int words[2] = {S::unpack_low8(bytes, zero), S::unpack_high8(bytes, zero)};
    Int rounded[4];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const Float x =
          S::to_float(v % 2 == 0 ? S::unpack_low16(words[v / 2], zero) : S::unpack_high16(words[v / 2], zero));
      Float q = S::at_most(S::at_least(S::multiply(S::to_float(sums[v]), scale), sum_min), sum_max);
      q = S::add(S::round_float(q), sum_zero_point);
      rounded[v] = S::round(kFirst ? S::multiply_add(x, x_scale, S::multiply_add(q, q_scale, offset))
                                   : S::multiply_add(q, q_scale, S::multiply_add(x, x_scale, offset)));
    }
#pragma GCC unroll 4
    for (int v = Vectors; v < 4; ++v) rounded[v] = rounded[0];
    this->template store<kPlain, Vectors>(rounded, y);
  }

  template <bool kPlain, int Vectors>
  void finish_any(const Int (&sums)[Vectors], Float scale, uint8_t* y, const uint8_t* from) const {
    const Int bytes = S::flip(S::template load_tile<Vectors>(from, this->pixels), flips), zero = S::set32(0);
    const Int words[2] = {S::unpack_low8(bytes, zero), S::unpack_high8(bytes, zero)};
    Int rounded[4];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const Int wide = v % 2 == 0 ? S::unpack_low16(words[v / 2], zero) : S::unpack_high16(words[v / 2], zero);
      Float x = S::to_float(wide);
      if (flips != 0) x = S::add(x, back);
      Float q = S::multiply(S::to_float(sums[v]), scale);
      if (sum.quantizes_sum) {
        q = S::at_most(S::at_least(q, sum_min), sum_max);
        q = S::add(S::round_float(q), sum_zero_point);
      }
      q = sum.is_first ? S::multiply_add(x, x_scale, S::multiply_add(q, q_scale, offset))
                       : S::multiply_add(q, q_scale, S::multiply_add(x, x_scale, offset));
      rounded[v] = S::round(is_bounded ? q : S::at_most(S::at_least(q, min), max));
    }
#pragma GCC unroll 4
    for (int v = Vectors; v < 4; ++v) rounded[v] = rounded[0];
    this->template store<kPlain, Vectors>(rounded, y);
  }
};

template <typename S, QuadStore kStore>
struct StoreOf {
  using Type = ByteStore<S>;
};
template <typename S>
struct StoreOf<S, QuadStore::kResidual> {
  using Type = ResidualStore<S>;
};

// Four rows of a tile as vectors of quads, one for each pixel.
template <typename S, int Vectors>
[[gnu::always_inline]] inline void interleave(typename S::Int a, typename S::Int b, typename S::Int c, typename S::Int d,
                                              typename S::Int (&quads)[Vectors]) {
  using Int = typename S::Int;
  const Int ab = S::unpack_low8(a, b), cd = S::unpack_low8(c, d);
  quads[0] = S::quads_low(ab, cd);
  if constexpr (Vectors > 1) quads[1] = S::quads_high(ab, cd);
  if constexpr (Vectors > 2) {
    const Int ab_high = S::unpack_high8(a, b), cd_high = S::unpack_high8(c, d);
    quads[2] = S::quads_low(ab_high, cd_high);
    if constexpr (Vectors > 3) quads[3] = S::quads_high(ab_high, cd_high);
  }
}

// Row blocks of `Height` rows, `Rows` of them at a time, times tiles of `Vectors` vectors. The tiles of some rows follow
// each other in Y, which is faster to write line after line than all over it.
template <typename S, int Height, int Rows, int Vectors, QuadStore kStore, bool kPlain>
[[gnu::always_inline]] inline void multiply_blocks(const QuadCall& call, const typename StoreOf<S, kStore>::Type& bytes) {
  static_assert(Height % Rows == 0, "a row block is cut into whole register tiles");
  using Int = typename S::Int;
  const int64_t blocks_of_group = call.r / Height;
  int64_t inside = call.first_block % blocks_of_group;
  const int64_t* begin = call.begin + call.first_block / blocks_of_group;
  const uint32_t* offsets = call.offsets + begin[0] * kQuadBytes;
  const int8_t* weights = call.weights + (begin[0] * call.r + inside * (begin[1] - begin[0]) * Height) * kQuadBytes;
  int64_t m = call.first_block * Height;
  const int64_t end_row = call.last_block * Height < call.rows ? call.last_block * Height : call.rows;
  auto* y = static_cast<uint8_t*>(call.Y);
  const auto* residual = static_cast<const uint8_t*>(call.residual);
  constexpr bool kIsSums = kStore == QuadStore::kInt32 || kStore == QuadStore::kLanes;
  constexpr int64_t kElement = kIsSums ? sizeof(int32_t) : 1;
  while (m < end_row) {
    const uint32_t* const end = offsets + (begin[1] - begin[0]) * kQuadBytes;
    for (int first = 0; first < Height && m < end_row; first += Rows, m += Rows) {
      const uint8_t* X = call.X;
      uint8_t* tile = y;
      const uint8_t* added_tile = residual;
      for (int64_t tiles = call.tiles; tiles > 0; --tiles) {
        Int sums[Rows][Vectors];
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
          const Int start = S::set32(call.bias[m + i]);
#pragma GCC unroll 4
          for (int v = 0; v < Vectors; ++v) sums[i][v] = start;
        }
        const int8_t* w = weights + first * kQuadBytes;
        for (const uint32_t* step = offsets; step < end; step += kQuadBytes, w += Height * kQuadBytes) {
          Int x[Vectors];
          interleave<S, Vectors>(S::load_row(X + step[0]), S::load_row(X + step[1]), S::load_row(X + step[2]),
                                 S::load_row(X + step[3]), x);
#pragma GCC unroll 8
          for (int i = 0; i < Rows; ++i) {
            const auto quad = S::template weights<Rows>(w, i);
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) S::dot(sums[i][v], x[v], quad);
          }
        }
        uint8_t* to = tile;
        const uint8_t* added = added_tile;
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
          if (m + i >= end_row) break;
          if constexpr (kStore == QuadStore::kInt32) {
            store_sums<S, Vectors>(sums[i], reinterpret_cast<int32_t*>(to), call.pixels);
          } else if constexpr (kStore == QuadStore::kLanes) {
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) S::store(reinterpret_cast<int32_t*>(to) + v * S::kLanes, sums[i][v]);
          } else {
            bytes.template finish<kPlain, Vectors>(sums[i], S::broadcast(call.scale + m + i), to, added);
          }
          to += call.ldy * kElement;
          if constexpr (kStore == QuadStore::kResidual) added += call.ldy;
        }
        X += call.ld_x;
        tile += call.pixels * kElement;
        if constexpr (kStore == QuadStore::kResidual) added_tile += call.pixels;
      }
      y += Rows * call.ldy * kElement;
      if constexpr (kStore == QuadStore::kResidual) residual += Rows * call.ldy;
    }
    weights += (end - offsets) * Height;
    if (++inside == blocks_of_group) {
      inside = 0;
      offsets = end;
      ++begin;
    }
  }
}

template <typename S, int Height, int Rows, int Vectors, QuadStore kStore>
void multiply_tile(const QuadCall& call) {
  const typename StoreOf<S, kStore>::Type bytes(call);
  if constexpr ((kStore == QuadStore::kBytes || kStore == QuadStore::kResidual) && Vectors == 4) {
    if (bytes.is_plain()) return multiply_blocks<S, Height, Rows, Vectors, kStore, true>(call, bytes);
  }
  multiply_blocks<S, Height, Rows, Vectors, kStore, false>(call, bytes);
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
#pragma GCC unroll 4
    for (int i = 0; i < kChains; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[i][v] = S::set32(0);
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
            multiply_tile<S, Height, Rows, 4, QuadStore::kResidual>},
           {multiply_tile<S, Height, RestRows, 1, QuadStore::kLanes>, multiply_tile<S, Height, RestRows, 2, QuadStore::kLanes>,
            multiply_tile<S, Height, RestRows, 3, QuadStore::kLanes>, multiply_tile<S, Height, Rows, 4, QuadStore::kLanes>}},
          multiply_vector<S, Height>};
}

// Bytes of a row, those of `fill` where the mask has no bit. Nothing is read there, nor outside [begin, end): one by one
// where a whole vector would.
template <typename S>
[[gnu::always_inline]] inline typename S::Int load_inside(const uint8_t* from, uint64_t mask, typename S::Int fill,
                                                          const uint8_t* begin, const uint8_t* end) {
  if constexpr (S::kHasByteMasks) {
    return S::load_masked(from, mask, fill);
  } else {
    constexpr int kPixels = S::kLanes * 4;
    if (from >= begin && end - from >= kPixels) {
      const auto bytes = S::load_row(from);
      return mask == S::kAllBytes ? bytes : S::keep(bytes, mask, fill);
    }
    uint8_t bytes[kPixels];
    S::store_row(bytes, fill);
    for (int i = 0; i < kPixels; ++i) {
      if ((mask >> i & 1) != 0) bytes[i] = from[i];
    }
    return S::load_row(bytes);
  }
}

template <typename S, int Vectors>
void lay_tile_of(const TileCall& given) {
  constexpr int kPixels = S::kLanes * 4;
  const TileCall call = given;
  const auto flip = S::set8(call.flip), fill = S::set8(call.fill ^ call.flip);
  const auto lay = [&](int64_t i, uint64_t mask) __attribute__((always_inline)) {
    const uint8_t* from = call.from + call.offsets[i];
    uint8_t* to = call.to + i * kPixels;
    const auto bytes = load_inside<S>(from, mask, fill, call.begin, call.end);
    S::store_row(to, S::template spread_tile<Vectors>(S::flip(bytes, flip)));
  };
  if (call.taps == nullptr) {
    for (int64_t i = 0; i < call.rows; ++i) lay(i, call.masks[0]);
  } else {
    for (int64_t i = 0; i < call.rows; ++i) lay(i, call.masks[call.taps[i] * call.mask_stride]);
  }
}

template <typename S>
void lay_tile(const TileCall& call) {
  switch ((call.pixels + S::kLanes - 1) / S::kLanes) {
    case 1:
      return lay_tile_of<S, 1>(call);
    case 2:
      return lay_tile_of<S, 2>(call);
    case 3:
      return lay_tile_of<S, 3>(call);
    default:
      return lay_tile_of<S, 4>(call);
  }
}

// A column of vectors of the planes, at x. What a vector writes past the end of its row, a later one writes again, if
// columns go from right to left and rows downwards.
template <typename S, typename Load>
[[gnu::always_inline]] inline void copy_column(const BytePlanes& planes, int64_t x, int64_t begin, int64_t end, const Load& load) {
  const auto flip = S::set8(planes.flip), fill = S::set8(planes.fill);
  const int64_t from_step = planes.stride_h * planes.in_w;
  for (int64_t channel = 0; channel < planes.channels; ++channel) {
    uint8_t* to = planes.to + channel * planes.to_channel + x;
    const uint8_t* from = planes.from + channel * planes.in_h * planes.in_w + (begin * planes.stride_h + planes.top) * planes.in_w;
    int64_t y = 0;
    for (; y < begin; ++y, to += planes.out_w) S::store_row(to, fill);
    for (; y < end; ++y, to += planes.out_w, from += from_step) S::store_row(to, S::flip(load(from), flip));
    for (; y < planes.out_h; ++y, to += planes.out_w) S::store_row(to, fill);
  }
}

template <int64_t kValue>
struct Constant {
  constexpr operator int64_t() const { return kValue; }
};

template <typename S>
void copy_byte_planes(const BytePlanes& given) {
  constexpr int64_t kPixels = S::kLanes * 4;
  const BytePlanes planes = given;
  // Rows of the plane that lie inside the input.
  const auto rows_before = [&](int64_t in_y) {
    const int64_t distance = in_y - planes.top;
    const int64_t rows = distance <= 0 ? 0 : (distance + planes.stride_h - 1) / planes.stride_h;
    return rows < planes.out_h ? rows : planes.out_h;
  };
  const int64_t begin = rows_before(0), end = rows_before(planes.in_h);
  if constexpr (S::kHasByteMasks) {
    if (planes.stride_w <= 2) {
      const auto fill = S::set8(planes.fill ^ planes.flip);
      for (int64_t x = (planes.out_w - 1) / kPixels * kPixels; x >= 0; x -= kPixels) {
        const int64_t first = x * planes.stride_w + planes.left;
        const uint64_t low = S::bytes_inside(first, planes.in_w), high = S::bytes_inside(first + kPixels, planes.in_w);
        if (planes.stride_w == 1) {
          copy_column<S>(planes, x, begin, end, [&](const uint8_t* row) { return S::load_masked(row + first, low, fill); });
        } else if (planes.out_w - x <= kPixels / 2) {
          copy_column<S>(planes, x, begin, end,
                         [&](const uint8_t* row) { return S::even(S::load_masked(row + first, low, fill)); });
        } else {
          copy_column<S>(planes, x, begin, end, [&](const uint8_t* row) {
            return S::even(S::load_masked(row + first, low, fill), S::load_masked(row + first + kPixels, high, fill));
          });
        }
      }
      return;
    }
  }
  // Columns of the plane that lie inside the input.
  const auto columns_before = [&](int64_t in_x) {
    const int64_t distance = in_x - planes.left;
    const int64_t columns = distance <= 0 ? 0 : (distance + planes.stride_w - 1) / planes.stride_w;
    return columns < planes.out_w ? columns : planes.out_w;
  };
  const int64_t left = columns_before(0), right = columns_before(planes.in_w);
  for (int64_t channel = 0; channel < planes.channels; ++channel) {
    for (int64_t y = 0; y < planes.out_h; ++y) {
      uint8_t* to = planes.to + channel * planes.to_channel + y * planes.out_w;
      if (y < begin || y >= end) {
        __builtin_memset(to, planes.fill, static_cast<size_t>(planes.out_w));
        continue;
      }
      const uint8_t* from = planes.from + (channel * planes.in_h + y * planes.stride_h + planes.top) * planes.in_w + planes.left;
      for (int64_t x = 0; x < left; ++x) to[x] = planes.fill;
      const auto copy = [&](auto stride) __attribute__((always_inline)) {
        const uint8_t flip = planes.flip;
        const uint8_t* __restrict source = from;
        uint8_t* __restrict target = to;
        for (int64_t x = left; x < right; ++x) target[x] = static_cast<uint8_t>(source[x * stride] ^ flip);
      };
      if (planes.stride_w == 1) {
        copy(Constant<1>());
      } else if (planes.stride_w == 2) {
        copy(Constant<2>());
      } else {
        copy(planes.stride_w);
      }
      for (int64_t x = right; x < planes.out_w; ++x) to[x] = planes.fill;
    }
  }
}

// A block of 16 × 16 is transposed by interleaving its upper with its lower half, four times. Blocks that share lines of
// `to` follow each other.
template <typename S>
void transpose_bytes(const ByteTranspose& call) {
  using Bytes = typename S::Bytes;
  constexpr int kBlock = 16;
  for (int64_t j = 0; j < call.columns; j += kBlock) {
    const int64_t columns = call.columns - j < kBlock ? call.columns - j : kBlock;
    for (int64_t i = 0; i < call.rows; i += kBlock) {
      const int64_t rows = call.rows - i < kBlock ? call.rows - i : kBlock;
      if (columns < kBlock || call.room - i < kBlock) {
        for (int64_t column = j; column < j + columns; ++column) {
          for (int64_t row = i; row < i + rows; ++row) {
            call.to[column * call.ld_to + row] = static_cast<uint8_t>(call.from[row * call.ld_from + column] ^ call.flip);
          }
        }
        continue;
      }
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

// Blocks of as many rows as a vector has lanes are transposed. What a pixel gets of all rows is written in one go: rows of
// Y often begin a multiple of 4 KiB from each other, and the first cache has little room for such lines.
template <typename S>
void finish_columns(const FinishColumnsCall& call) {
  using Int = typename S::Int;
  using Float = typename S::Float;
  constexpr int kLanes = S::kLanes;
  const QuantizedEpilogue& epilogue = *call.epilogue;
  const Residual& residual = epilogue.residual;
  const auto* floats_added = static_cast<const float*>(call.residual);
  const bool is_fast = epilogue.type == ElementType::kFloat32 && call.rows % kLanes == 0 &&
                       (floats_added == nullptr || (residual.type == ElementType::kFloat32 && !residual.quantizes_sum));
  const int64_t vectors = (call.pixels + kLanes - 1) / kLanes;
  const Float min = S::set(epilogue.min), max = S::set(epilogue.max);
  const Float x_scale = S::set(residual.scale), q_scale = S::set(residual.sum_scale), offset = S::set(residual.offset);
  int32_t columns[kLanes][kMostFinishedRows];
  for (int64_t v = 0; v < vectors; ++v) {
    for (int64_t row = 0; row < call.rows; row += kLanes) {
      Int sums[kLanes];
      const int32_t* from = call.sums + row * kMostTilePixels + v * kLanes;
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) sums[i] = row + i < call.rows ? S::load32(from + i * kMostTilePixels) : S::set32(0);
      S::transpose(sums);
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) S::store(columns[lane] + row, sums[lane]);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t pixel = (lane / 4 * vectors + v) * 4 + lane % 4;
      if (pixel >= call.pixels) break;
      const int32_t* column = columns[lane];
      if (is_fast) {
        float* y = static_cast<float*>(call.Y) + pixel * call.ldy;
        const float* added = floats_added + (floats_added != nullptr ? pixel * call.ldy : 0);
        for (int64_t row = 0; row < call.rows; row += kLanes) {
          Float q = S::multiply(S::to_float(S::load32(column + row)), S::load(call.scale + row));
          if (call.float_bias != nullptr) q = S::add(q, S::load(call.float_bias + row));
          if (added != nullptr) {
            const Float x = S::load(added + row);
            q = residual.is_first ? S::multiply_add(x, x_scale, S::multiply_add(q, q_scale, offset))
                                  : S::multiply_add(q, q_scale, S::multiply_add(x, x_scale, offset));
          }
          S::store(y + row, S::clamp(q, min, max));
        }
      } else if (epilogue.type == ElementType::kInt32) {
        auto* y = static_cast<int32_t*>(call.Y) + pixel * call.ldy;
        __builtin_memcpy(y, column, static_cast<size_t>(call.rows) * sizeof(int32_t));
      } else {
        const int64_t added_size = residual.type == ElementType::kFloat32 ? sizeof(float) : 1;
        const int64_t y_size = epilogue.type == ElementType::kFloat32 ? sizeof(float) : 1;
        const auto* added = static_cast<const uint8_t*>(call.residual);
        finish<S>({column, call.rows, call.scale, call.float_bias, 1,
                   added != nullptr ? added + pixel * call.ldy * added_size : nullptr,
                   static_cast<uint8_t*>(call.Y) + pixel * call.ldy * y_size, &epilogue});
      }
    }
  }
}

template <typename S>
double dot_products(int64_t rounds, int32_t* result) {
  constexpr int kChains = 12;
  typename S::Int sums[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sums[i] = S::set32(*result);
  auto x = S::set32(*result);
  const int8_t quad[kQuadBytes] = {1, 2, 3, 4};
  const auto weights = S::template weights<1>(quad, 0);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      S::make_unknown(x);  // or the compiler multiplies only once
      S::dot(sums[i], x, weights);
    }
  }
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sums[0] = S::add32(sums[0], sums[i]);
  int32_t lanes[S::kLanes];
  S::store(lanes, sums[0]);
  *result = lanes[0];
  return static_cast<double>(rounds) * kChains * S::kLanes * kQuadBytes;
}

}  // namespace
}  // namespace scalpel
