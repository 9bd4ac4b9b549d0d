// GEMV for every instruction set: the streams of a slice (gemv_streams.h) side by side, one accumulator each, so
// that neither the latency of an addition nor the end of a row is waited for. Values stored in 16 or 8 bits are
// widened in registers.
//
// Included by the translation unit of an instruction set only; all of it has internal linkage.
#pragma once

#include <cstddef>

#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

inline void store_row(const GemvCall& call, int64_t row, float sum) {
  if (call.scale != nullptr) sum *= call.scale[row];
  if (call.bias != nullptr) sum += call.bias[row];
  if (call.residual != nullptr) sum += call.residual[row];
  sum = sum < call.min ? call.min : sum;
  call.y[row] = sum > call.max ? call.max : sum;
}

// A slice as the kernels read it: `values` and `indices` move past what was consumed.
template <int Streams, typename Value, typename Index>
struct Slice {
  Slice(const GemvCall& call, int64_t slice, int width)
      : first(slice * Streams),
        streams(call.n_streams - first < Streams ? static_cast<int>(call.n_streams - first) : Streams),
        common(streams == Streams ? call.lengths[first + Streams - 1] : 0),
        values(static_cast<const Value*>(call.values) + call.slice_begin[slice] * width),
        indices(static_cast<const Index*>(call.indices) + call.slice_begin[slice]) {}

  int64_t first;
  int streams;
  uint32_t common;
  const Value* values;
  const Index* indices;

  uint32_t left(const GemvCall& call, int stream) const { return call.lengths[first + stream] - common; }
};

// Items of as many weights as a vector has lanes.
template <typename Vectors, GemvLayout Layout, int Streams, typename Value, typename Index>
void gemv_vectors(const GemvCall& call) {
  using Vector = typename Vectors::Vector;
  constexpr int kWidth = Vectors::kLanes;
  constexpr bool kIsRow = Layout == GemvLayout::kRowVectors;
  for (int64_t i = call.first_slice; i < call.last_slice; ++i) {
    Slice<Streams, Value, Index> slice(call, i, kWidth);
    const auto take = [&](Vector sum, int item) {
      const size_t index = slice.indices[item];
      const Vector weights = Vectors::load(slice.values + item * kWidth);
      if constexpr (kIsRow) {
        return Vectors::multiply_add(weights, Vectors::load(call.x + index * kWidth), sum);
      } else {
        return Vectors::multiply_add(weights, Vectors::broadcast(call.x + index), sum);
      }
    };
    // In two arrays, for what is indexed by a variable does not stay in registers.
    Vector running[Streams], sums[Streams];
#pragma GCC unroll 16
    for (Vector& sum : running) sum = Vectors::zero();
    for (uint32_t item = 0; item < slice.common; ++item) {
#pragma GCC unroll 16
      for (int s = 0; s < Streams; ++s) running[s] = take(running[s], s);
      slice.values += Streams * kWidth;
      slice.indices += Streams;
    }
#pragma GCC unroll 16
    for (int s = 0; s < Streams; ++s) sums[s] = running[s];
    for (int s = 0; s < slice.streams; ++s) {
      Vector more[4] = {sums[s], Vectors::zero(), Vectors::zero(), Vectors::zero()};
      uint32_t left = slice.left(call, s);
      for (; left >= 4; left -= 4) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) more[j] = take(more[j], j);
        slice.values += 4 * kWidth;
        slice.indices += 4;
      }
      for (; left > 0; --left) {
        more[0] = take(more[0], 0);
        slice.values += kWidth;
        ++slice.indices;
      }
      sums[s] = Vectors::add(Vectors::add(more[0], more[1]), Vectors::add(more[2], more[3]));
    }
    if constexpr (kIsRow) {
      float totals[Streams];
      Vectors::sum_each(sums, totals);
      for (int s = 0; s < slice.streams; ++s) store_row(call, call.stream_row[slice.first + s], totals[s]);
    } else {
      for (int s = 0; s < slice.streams; ++s) {
        float totals[kWidth];
        Vectors::store(totals, sums[s]);
        const int64_t row = call.stream_row[slice.first + s];
        for (int64_t j = 0; j < kWidth && row + j < call.M; ++j) store_row(call, row + j, totals[j]);
      }
    }
  }
}

// One stream to a lane.
template <typename Vectors, typename Value, typename Index>
void gemv_elements(const GemvCall& call) {
  using Vector = typename Vectors::Vector;
  constexpr int Streams = Vectors::kLanes;
  constexpr int kUnroll = 4;
  for (int64_t i = call.first_slice; i < call.last_slice; ++i) {
    Slice<Streams, Value, Index> slice(call, i, 1);
    Vector sums[kUnroll];
#pragma GCC unroll 4
    for (Vector& sum : sums) sum = Vectors::zero();
    const auto take = [&](Vector sum, int item) {
      const Vector x = Vectors::gather(call.x, slice.indices + item * Streams);
      return Vectors::multiply_add(Vectors::load(slice.values + item * Streams), x, sum);
    };
    uint32_t items = slice.common;
    for (; items >= kUnroll; items -= kUnroll) {
#pragma GCC unroll 4
      for (int j = 0; j < kUnroll; ++j) sums[j] = take(sums[j], j);
      slice.values += kUnroll * Streams;
      slice.indices += kUnroll * Streams;
    }
    for (; items > 0; --items) {
      sums[0] = take(sums[0], 0);
      slice.values += Streams;
      slice.indices += Streams;
    }
    float totals[Streams];
    Vectors::store(totals, Vectors::add(Vectors::add(sums[0], sums[1]), Vectors::add(sums[2], sums[3])));
    for (int s = 0; s < slice.streams; ++s) {
      for (uint32_t left = slice.left(call, s); left > 0; --left) {
        totals[s] += Vectors::widen(*slice.values++) * call.x[*slice.indices++];
      }
      store_row(call, call.stream_row[slice.first + s], totals[s]);
    }
  }
}

template <typename Vectors, GemvLayout Layout, int Streams, typename Value, typename Index>
void gemv(const GemvCall& call) {
  if constexpr (Layout == GemvLayout::kElements) {
    gemv_elements<Vectors, Value, Index>(call);
  } else {
    gemv_vectors<Vectors, Layout, Streams, Value, Index>(call);
  }
}

// A row of the table, with the kernel of each stored type. With elements, Streams is the number of lanes.
template <typename Vectors, GemvLayout Layout, int Streams>
constexpr GemvKernel gemv_row(const char* name, int most_rows) {
  return {name,
          Layout,
          Layout == GemvLayout::kElements ? 1 : Vectors::kLanes,
          Streams,
          most_rows,
          {{gemv<Vectors, Layout, Streams, float, uint16_t>, gemv<Vectors, Layout, Streams, float, uint32_t>},
           {gemv<Vectors, Layout, Streams, Float16, uint16_t>, gemv<Vectors, Layout, Streams, Float16, uint32_t>},
           {gemv<Vectors, Layout, Streams, Bfloat16, uint16_t>, gemv<Vectors, Layout, Streams, Bfloat16, uint32_t>},
           {gemv<Vectors, Layout, Streams, int8_t, uint16_t>, gemv<Vectors, Layout, Streams, int8_t, uint32_t>}}};
}

}  // namespace
}  // namespace scalpel
