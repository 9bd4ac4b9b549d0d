#include "kernels/interface.h"

namespace scalpel {

std::string validate(const LrnView& lrn) {
  if (lrn.beta != 0.5f && lrn.beta != 0.75f && lrn.beta != 1.0f) {
    return "beta must be 0.5, 0.75 or 1, got " + std::to_string(lrn.beta);
  }
  for (int64_t c = 0; c < lrn.channels; ++c) {
    const int64_t begin = lrn.window_begin[c], end = lrn.window_end[c];
    const std::string channel = "[" + std::to_string(c) + "] = ";
    if (begin < 0 || begin > lrn.channels) {
      return "window_begin" + channel + std::to_string(begin) + " is outside the " + std::to_string(lrn.channels) +
             " channels";
    }
    if (end > lrn.channels) {
      return "window_end" + channel + std::to_string(end) + " is outside the " + std::to_string(lrn.channels) +
             " channels";
    }
    if (end < begin) {
      return "window_end" + channel + std::to_string(end) + " is before window_begin" + channel +
             std::to_string(begin);
    }
  }
  return {};
}

}  // namespace scalpel
