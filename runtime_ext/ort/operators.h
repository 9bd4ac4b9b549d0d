// The kernels behind the operators of domain ai.scalpel. Each throws Error if the node is unusable.
#pragma once

#include <memory>

#include "kernels/interface.h"
#include "layer.h"
#include "node.h"

namespace scalpel {

std::unique_ptr<Kernel> make_gemm(const Node& node, Isa isa);
std::unique_ptr<Kernel> make_scaled_gemm(const Node& node, Isa isa);
std::unique_ptr<Kernel> make_conv(const Node& node, Isa isa);
std::unique_ptr<Kernel> make_lrn(const Node& node, Isa isa);
std::unique_ptr<Kernel> make_q_gemm(const Node& node, Isa isa);
std::unique_ptr<Kernel> make_q_conv(const Node& node, Isa isa);
// X is int8, or uint8.
std::unique_ptr<Kernel> make_qlinear_gemm(const Node& node, Isa isa, bool is_signed);
std::unique_ptr<Kernel> make_qlinear_gemm_add(const Node& node, Isa isa, bool is_signed);
std::unique_ptr<Kernel> make_qlinear_conv(const Node& node, Isa isa, bool is_signed);
std::unique_ptr<Kernel> make_qlinear_conv_add(const Node& node, Isa isa, bool is_signed);
std::unique_ptr<Kernel> make_gemm_integer_to_float(const Node& node, Isa isa, bool is_signed);
std::unique_ptr<Kernel> make_conv_integer_to_float(const Node& node, Isa isa, bool is_signed);

}  // namespace scalpel
