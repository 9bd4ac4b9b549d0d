#include <new>
#include <stdexcept>

#include "dispatch/kernel_sets.h"
#include "kernels/conv_geometry.h"
#include "kernels/plans.h"
#include "kernels/quantized_plans.h"

namespace scalpel {
namespace {

template <typename Plan, typename Make>
std::unique_ptr<Plan> make(const std::string& what, std::string problem, std::string* error,
                           const Make& make_checked) {
  if (problem.empty()) {
    problem = "there is not enough memory to repack " + what;
    try {
      return make_checked();
    } catch (const std::bad_alloc&) {
    } catch (const std::length_error&) {  // more than a std::vector can hold
    }
  }
  *error = std::move(problem);
  return nullptr;
}

std::string describe(const GroupCsrView& matrix) {
  return "a matrix of shape [" + std::to_string(matrix.M) + ", " + std::to_string(matrix.K) + "]";
}

bool fits_vectors(const GroupCsrView& matrix) { return matrix.M <= kMaxVectorM && matrix.K < kMaxVectorK; }

// Null where the scalar kernels must do.
const KernelSet* vector_kernels(const GroupCsrView& matrix, Isa isa) {
  return fits_vectors(matrix) ? kernel_set(isa) : nullptr;
}

}  // namespace

std::unique_ptr<GemmPlan> make_gemm_plan(const GroupCsrView& matrix, Isa isa, std::string* error) {
  return make<GemmPlan>(describe(matrix), validate(matrix), error, [&] {
    const KernelSet* kernels = vector_kernels(matrix, isa);
    return kernels != nullptr ? make_vector_gemm_plan(matrix, *kernels) : make_scalar_gemm_plan(matrix);
  });
}

std::unique_ptr<ConvPlan> make_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry, Isa isa,
                                         std::string* error) {
  std::string problem = validate(matrix);
  if (problem.empty()) problem = check_geometry(matrix, geometry);
  return make<ConvPlan>(describe(matrix), std::move(problem), error, [&] {
    const KernelSet* kernels = vector_kernels(matrix, isa);
    if (kernels == nullptr) return make_scalar_conv_plan(matrix, geometry);
    std::unique_ptr<ConvPlan> depthwise = make_depthwise_conv_plan(matrix, geometry, *kernels);
    return depthwise != nullptr ? std::move(depthwise) : make_vector_conv_plan(matrix, geometry, *kernels);
  });
}

std::unique_ptr<QuantizedGemmPlan> make_quantized_gemm_plan(const GroupCsrView& matrix, const QuantizedKernels* kernels,
                                                            std::string* error) {
  return make<QuantizedGemmPlan>(describe(matrix), validate(matrix), error, [&] {
    return kernels != nullptr && fits_vectors(matrix) ? make_vector_quantized_gemm_plan(matrix, *kernels)
                                                      : make_scalar_quantized_gemm_plan(matrix);
  });
}

std::unique_ptr<QuantizedConvPlan> make_quantized_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                            const QuantizedKernels* kernels, std::string* error) {
  std::string problem = validate(matrix);
  if (problem.empty()) problem = check_geometry(matrix, geometry);
  return make<QuantizedConvPlan>(describe(matrix), std::move(problem), error, [&] {
    if (kernels == nullptr || !fits_vectors(matrix)) return make_scalar_quantized_conv_plan(matrix, geometry);
    std::unique_ptr<QuantizedConvPlan> depthwise = make_quantized_depthwise_plan(matrix, geometry, *kernels);
    return depthwise != nullptr ? std::move(depthwise) : make_vector_quantized_conv_plan(matrix, geometry, *kernels);
  });
}

std::unique_ptr<QuantizedGemmPlan> make_quantized_gemm_plan(const GroupCsrView& matrix, Isa isa, std::string* error) {
  return make_quantized_gemm_plan(matrix, quantized_kernels(isa), error);
}

std::unique_ptr<QuantizedConvPlan> make_quantized_conv_plan(const GroupCsrView& matrix, const ConvGeometry& geometry,
                                                            Isa isa, std::string* error) {
  return make_quantized_conv_plan(matrix, geometry, quantized_kernels(isa), error);
}

std::unique_ptr<LrnPlan> make_lrn_plan(const LrnView& lrn, Isa isa, std::string* error) {
  const std::string what = "the windows of " + std::to_string(lrn.channels) + " channels";
  return make<LrnPlan>(what, validate(lrn), error, [&] {
    const KernelSet* kernels = kernel_set(isa);
    return kernels != nullptr ? make_vector_lrn_plan(lrn, *kernels) : make_scalar_lrn_plan(lrn);
  });
}

}  // namespace scalpel
