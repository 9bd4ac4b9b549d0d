// Memory aligned as the kernels want their workspace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace scalpel {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Workspace = std::unique_ptr<void, Free>;

inline Workspace allocate(size_t bytes) {
  constexpr size_t kAlignment = 64;
  if (bytes > PTRDIFF_MAX - kAlignment) throw std::bad_alloc();
  void* memory = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
  if (memory == nullptr) throw std::bad_alloc();
  return Workspace(memory);
}

}  // namespace scalpel
