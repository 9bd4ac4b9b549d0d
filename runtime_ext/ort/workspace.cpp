#include "workspace.h"

#include "error.h"

namespace scalpel {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

CpuMemory::CpuMemory(const OrtApi& api) : api_(api) {
  check(api_, api_.CreateCpuMemoryInfo(kOrtArenaAllocator, kOrtMemoryDefault, &info_));
}

CpuMemory::~CpuMemory() { api_.ReleaseMemoryInfo(info_); }

Workspace::~Workspace() {
  const OrtApi& api = memory_.api();
  // Nothing can be done about a failure to free.
  if (data_ != nullptr) {
    if (OrtStatus* status = api.AllocatorFree(allocator_, data_)) api.ReleaseStatus(status);
  }
  if (allocator_ != nullptr) api.ReleaseAllocator(allocator_);
}

void* Workspace::get(size_t bytes, const std::string& label) {
  if (bytes == 0) return nullptr;
  const OrtApi& api = memory_.api();
  check(api, api.KernelContext_GetAllocator(&context_, memory_.info(), &allocator_));
  if (OrtStatus* status = api.AllocatorAlloc(allocator_, bytes + kAlignment - 1, &data_)) {
    api.ReleaseStatus(status);  // says less than we do
    data_ = nullptr;
  }
  if (data_ == nullptr) throw Error(label + ": no memory for " + std::to_string(bytes) + " bytes of workspace");
  const uintptr_t address = reinterpret_cast<uintptr_t>(data_);
  return reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace scalpel
