// A plan's own copy of an LrnView.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.h"

namespace scalpel {

struct LrnWindows {
  explicit LrnWindows(const LrnView& lrn)
      : channels(lrn.channels),
        begin(lrn.window_begin, lrn.window_begin + lrn.channels),
        end(lrn.window_end, lrn.window_end + lrn.channels),
        bias(lrn.bias, lrn.bias + lrn.channels),
        alpha(lrn.alpha),
        beta(lrn.beta) {}

  int64_t channels;
  std::vector<int32_t> begin, end;  // [channels]
  std::vector<float> bias;          // [channels]
  float alpha, beta;
};

}  // namespace scalpel
