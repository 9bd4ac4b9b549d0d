#include "bindings/machine_rates.h"

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "bindings/time_calls.h"
#include "bindings/workspace.h"

namespace scalpel {
namespace {

// Between what is read and what is written: where the lowest bits of their addresses are the same, a load waits
// for the store before it.
constexpr size_t kGap = 33 * 64;

size_t stream_step_bytes(const KernelSet& set) { return sizeof(float) * kStreamVectors * set.lanes; }

// work(thread) does a piece of work and returns its amount. Amount per second: the threads' medians, added up.
template <typename Work>
double total_rate(size_t threads, double seconds, const Work& work) {
  std::vector<double> rates(threads);
  std::atomic<size_t> ready{0};
  const auto measure = [&](size_t thread) {
    double amount = work(thread);
    ++ready;
    while (ready < threads) std::this_thread::yield();
    std::vector<double> times = time_calls([&] { amount = work(thread); }, 1, seconds);
    const auto middle = times.begin() + static_cast<ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    rates[thread] = amount / *middle;
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < threads; ++i) others.emplace_back(measure, i);
  measure(0);
  for (std::thread& other : others) other.join();
  double total = 0;
  for (const double rate : rates) total += rate;
  return total;
}

// Keeps the calling thread on a core, where the system lets one choose.
void stay_on(size_t core) {
#ifdef __linux__
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (core < CPU_SETSIZE) CPU_SET(core, &cores);
  pthread_setaffinity_np(pthread_self(), sizeof cores, &cores);
#else
  static_cast<void>(core);
#endif
}

}  // namespace

double peak_flops(const KernelSet& set, size_t threads, double seconds) {
  constexpr int64_t kRounds = 200000;
  return total_rate(threads, seconds, [&](size_t) {
    float result = 1.0f;
    return 2 * set.multiply_add(kRounds, &result);
  });
}

double peak_int8_ops(const QuantizedKernels& kernels, size_t threads, double seconds) {
  constexpr int64_t kRounds = 200000;
  return total_rate(threads, seconds, [&](size_t) {
    int32_t result = 1;
    return 2 * kernels.dot_products(kRounds, &result);
  });
}

size_t least_stream_bytes(const KernelSet& set) { return 2 * stream_step_bytes(set); }

double bandwidth(const KernelSet& set, size_t bytes, bool copy, size_t threads, double seconds) {
  // So that reading the clock does not count.
  constexpr size_t kLeastBytes = 1 << 21;
  const size_t part = bytes / (copy ? 2 : 1) / stream_step_bytes(set) * stream_step_bytes(set);
  const size_t moved = copy ? 2 * part : part;
  const int64_t passes = static_cast<int64_t>(std::max<size_t>(1, kLeastBytes / moved));
  const int64_t count = static_cast<int64_t>(part / sizeof(float));
  std::vector<Workspace> memory;
  std::vector<float> sums(threads);
  for (size_t i = 0; i < threads; ++i) {
    memory.push_back(allocate(moved + kGap));
    std::fill_n(static_cast<float*>(memory.back().get()), (moved + kGap) / sizeof(float), 0.0f);
  }
  return total_rate(threads, seconds, [&](size_t thread) {
    float* const from = static_cast<float*>(memory[thread].get());
    if (copy) {
      set.copy_stream(from, count, from + count + kGap / sizeof(float), passes);
    } else {
      sums[thread] += set.read_stream(from, count, passes);
    }
    return static_cast<double>(passes) * static_cast<double>(moved);
  });
}

double exchange_bandwidth(size_t writer_core, size_t reader_core, size_t bytes, size_t rounds) {
  constexpr size_t kLine = 64 / sizeof(uint32_t);
  const Workspace memory = allocate(bytes);
  auto* const data = static_cast<volatile uint32_t*>(memory.get());
  const size_t count = bytes / sizeof(uint32_t);
  std::atomic<size_t> turn{0};  // even: the writer's
  std::thread writer([&] {
    stay_on(writer_core);
    for (size_t round = 0; round < rounds; ++round) {
      while (turn != 2 * round) std::this_thread::yield();
      for (size_t i = 0; i < count; i += kLine) data[i] = static_cast<uint32_t>(round);
      ++turn;
    }
  });
  double best = 0;
  std::thread reader([&] {
    stay_on(reader_core);
    for (size_t round = 0; round < rounds; ++round) {
      while (turn != 2 * round + 1) std::this_thread::yield();
      const auto start = std::chrono::steady_clock::now();
      uint32_t sum = 0;
      for (size_t i = 0; i < count; i += kLine) sum += data[i];
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      best = std::max(best, static_cast<double>(bytes) / took.count());
      data[0] = sum;
      ++turn;
    }
  });
  writer.join();
  reader.join();
  return best;
}

}  // namespace scalpel
