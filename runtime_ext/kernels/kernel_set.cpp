#include "kernels/kernel_set.h"

namespace scalpel {
namespace {

bool handles(const GemvKernel& kernel, int64_t r, int64_t c) {
  switch (kernel.layout) {
    case GemvLayout::kRowVectors:
      return c % kernel.width == 0;
    case GemvLayout::kColumnVectors:
      return r % kernel.width == 0;
    case GemvLayout::kElements:
      return true;
  }
  return false;
}

}  // namespace

const SpmmKernel& spmm_kernel(const KernelSet& set, int64_t r) {
  size_t i = 0;
  while (r % set.spmm[i].rows != 0) ++i;
  return set.spmm[i];
}

const GemvKernel& gemv_kernel(const KernelSet& set, int64_t r, int64_t c) {
  size_t i = 0;
  while (!handles(set.gemv[i], r, c)) ++i;
  return set.gemv[i];
}

}  // namespace scalpel
