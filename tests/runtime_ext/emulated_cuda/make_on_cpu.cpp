// The CUDA operators in the place of those of the CPU: ONNX Runtime runs them without a card.
#include "cuda/operators.h"
#include "ort/operators.h"

namespace scalpel {

std::unique_ptr<Kernel> make_gemm(const Node& node, Isa) { return make_cuda_gemm(node); }
std::unique_ptr<Kernel> make_scaled_gemm(const Node& node, Isa) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_conv(const Node& node, Isa) { return make_cuda_conv(node); }
std::unique_ptr<Kernel> make_lrn(const Node& node, Isa) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_q_gemm(const Node& node, Isa) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_q_conv(const Node& node, Isa) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_qlinear_gemm(const Node& node, Isa, bool) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_qlinear_gemm_add(const Node& node, Isa, bool) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_qlinear_conv(const Node& node, Isa, bool) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_qlinear_conv_add(const Node& node, Isa, bool) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_gemm_integer_to_float(const Node& node, Isa, bool) { node.fail("has no CUDA kernel"); }
std::unique_ptr<Kernel> make_conv_integer_to_float(const Node& node, Isa, bool) { node.fail("has no CUDA kernel"); }

bool choose_isa(Isa* isa, std::string*) {
  *isa = Isa::kScalar;
  return true;
}

}  // namespace scalpel
