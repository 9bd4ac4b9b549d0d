// Timing by repetition.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

namespace scalpel {

// Calls run() once, then until both `runs` and `seconds` are reached; gives back the seconds of each later call.
template <typename Run>
std::vector<double> time_calls(const Run& run, size_t runs, double seconds) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  run();
  for (double total = 0; times.size() < runs || total < seconds; total += times.back()) {
    const auto start = Clock::now();
    run();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  return times;
}

}  // namespace scalpel
