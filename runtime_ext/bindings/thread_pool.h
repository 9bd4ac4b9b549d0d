// The threads that tests and benchmarks give the kernels; in ONNX Runtime its own pool does this.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/interface.h"

namespace scalpel {

class ThreadPool {
 public:
  explicit ThreadPool(size_t threads) {
    for (size_t i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }

  ~ThreadPool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  Parallel parallel() {
    return {[](void* self, void (*body)(void*, size_t), size_t count, void* user) {
              static_cast<ThreadPool*>(self)->run(body, count, user);
            },
            this};
  }

 private:
  void run(void (*body)(void*, size_t), size_t count, void* user) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      body_ = body;
      user_ = user;
      count_ = count;
      next_ = 0;
      busy_ = workers_.size();
      ++generation_;
    }
    wake_.notify_all();
    take_tasks();
    while (busy_ != 0) std::this_thread::yield();
  }

  void take_tasks() {
    for (size_t i = next_++; i < count_; i = next_++) body_(user_, i);
  }

  // Spins for a while before it sleeps, as ONNX Runtime's threads do.
  void work() {
    size_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < 2000 && generation_ == seen && !stop_; ++spin) std::this_thread::yield();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
        if (stop_) return;
        seen = generation_;
      }
      take_tasks();
      --busy_;
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<size_t> generation_{0}, next_{0}, busy_{0};
  std::atomic<bool> stop_{false};
  void (*body_)(void*, size_t) = nullptr;
  void* user_ = nullptr;
  size_t count_ = 0;
  std::vector<std::thread> workers_;
};

}  // namespace scalpel
