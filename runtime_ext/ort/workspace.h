// Scratch memory of a call, from ONNX Runtime's own allocator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "abi.h"

namespace scalpel {

// Which memory to take.
class CpuMemory {
 public:
  explicit CpuMemory(const OrtApi& api);
  CpuMemory(const CpuMemory&) = delete;
  CpuMemory& operator=(const CpuMemory&) = delete;
  ~CpuMemory();

  const OrtApi& api() const { return api_; }
  const OrtMemoryInfo* info() const { return info_; }

 private:
  const OrtApi& api_;
  OrtMemoryInfo* info_ = nullptr;
};

// Freed with the object.
class Workspace {
 public:
  Workspace(const CpuMemory& memory, OrtKernelContext& context) : memory_(memory), context_(context) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace();

  // 64-byte aligned, or null for 0 bytes; once. `label` begins the message of an error.
  void* get(size_t bytes, const std::string& label);

 private:
  const CpuMemory& memory_;
  OrtKernelContext& context_;
  OrtAllocator* allocator_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace scalpel
