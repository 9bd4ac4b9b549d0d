// Numbers of buffers that tasks share: a task takes one that no other has, of those the lowest, so that as few are
// touched as there are threads, and what one task leaves in the caches the next one uses.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace scalpel {

class BufferPool {
 public:
  static constexpr size_t kMost = 64;

  // `count` is at most kMost, and no more tasks than that may hold a buffer at the same time.
  explicit BufferPool(size_t count) : free_(count == kMost ? ~uint64_t{0} : (uint64_t{1} << count) - 1) {}

  size_t take() {
    uint64_t free = free_.load(std::memory_order_relaxed);
    while (!free_.compare_exchange_weak(free, free & (free - 1), std::memory_order_acquire, std::memory_order_relaxed)) {
    }
    return static_cast<size_t>(__builtin_ctzll(free));
  }

  void give_back(size_t buffer) { free_.fetch_or(uint64_t{1} << buffer, std::memory_order_release); }

 private:
  std::atomic<uint64_t> free_;  // a bit for each buffer
};

}  // namespace scalpel
