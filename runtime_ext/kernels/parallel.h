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
// results do not depend on the number of threads. Of more than two it is a multiple of four: most numbers of threads
// have a part in common with that, and then fewer of them wait for the last task.
inline size_t task_count(double work, double work_per_task) {
  constexpr double kMaxTasks = 256;
  const auto count = static_cast<size_t>(std::clamp(work / work_per_task, 1.0, kMaxTasks));
  return count <= 2 ? count : (count + 3) / 4 * 4;
}

// The first of `items` that belongs to part `i` of `parts` about equal parts.
inline int64_t part_begin(int64_t items, size_t i, size_t parts) {
  const auto index = static_cast<int64_t>(i), count = static_cast<int64_t>(parts);
  return items / count * index + std::min(index, items % count);
}

}  // namespace scalpel
