// Running and cutting work on the caller's threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/interface.h"

namespace scalpel {

// Calls body(i) for i in [0, count); a single task runs on the calling thread.
template <typename Body>
void parallel_for(const Parallel& parallel, size_t count, const Body& body) {
  if (count <= 1 || parallel.run == nullptr) {
    for (size_t i = 0; i < count; ++i) body(i);
    return;
  }
  parallel.run(
      parallel.context, [](void* user, size_t i) { (*static_cast<const Body*>(user))(i); }, count,
      const_cast<Body*>(&body));
}

// How many tasks `work` is worth when one should hold about `work_per_task`: it depends on nothing else, so that
// results do not depend on the number of threads.
inline size_t task_count(double work, double work_per_task) {
  constexpr double kMaxTasks = 256;
  return static_cast<size_t>(std::clamp(work / work_per_task, 1.0, kMaxTasks));
}

// The first of `items` that belongs to part `i` of `parts` about equal parts.
inline int64_t part_begin(int64_t items, size_t i, size_t parts) {
  const auto index = static_cast<int64_t>(i), count = static_cast<int64_t>(parts);
  return items / count * index + std::min(index, items % count);
}

}  // namespace scalpel
