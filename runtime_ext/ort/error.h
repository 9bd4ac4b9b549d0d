// Errors are exceptions inside this library and statuses outside of it; nothing else crosses the C boundary.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "abi.h"

namespace scalpel {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

// Throws the message of a status that is not a success, and releases it.
inline void check(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return;
  struct Release {
    const OrtApi& api;
    OrtStatus* status;
    ~Release() { api.ReleaseStatus(status); }
  } release{api, status};
  throw Error(api.GetErrorMessage(status));
}

// Runs the body of a C callback and gives back what it threw as a status.
template <typename Body>
OrtStatus* guarded(const OrtApi& api, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error& error) {
    return api.CreateStatus(kOrtInvalidArgument, error.what());
  } catch (const std::bad_alloc&) {
    return api.CreateStatus(kOrtFail, "ai.scalpel operator: out of memory");
  } catch (const std::exception& error) {
    return api.CreateStatus(kOrtFail, error.what());
  } catch (...) {
    return api.CreateStatus(kOrtFail, "ai.scalpel operator: unknown error");
  }
}

}  // namespace scalpel
