// Tables that depend on the shape of the input, made at the first use of a shape and then shared by all threads.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

namespace scalpel {

template <typename Table>
class ShapeCache {
 public:
  using Key = std::array<int64_t, 2>;

  // The table of `key`, from make() if it is not among the last few.
  template <typename Make>
  std::shared_ptr<const Table> get(Key key, const Make& make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Entry& entry : entries_) {
      if (entry.key == key) return entry.table;
    }
    constexpr size_t kMostEntries = 8;
    if (entries_.size() == kMostEntries) entries_.pop_back();
    entries_.push_front({key, std::make_shared<const Table>(make())});
    return entries_.front().table;
  }

 private:
  struct Entry {
    Key key;
    std::shared_ptr<const Table> table;
  };

  std::mutex mutex_;
  std::deque<Entry> entries_;
};

}  // namespace scalpel
