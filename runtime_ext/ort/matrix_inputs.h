// The constant inputs that hold a group-CSR matrix, checked for types and shapes; what they hold is checked by the plan.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/interface.h"
#include "node.h"

namespace scalpel {

// kFloat: of 32 or 16 bits. kScaled: int8, multiples of a scale of their row that the caller reads.
enum class StoredValues { kFloat, kInt8, kScaled };

// The matrix of a layer whose attribute weight_shape is given. Its arrays are ONNX Runtime's.
// first: position of the input `values`; row_offsets and column_indices follow it.
GroupCsrView read_matrix(const Node& node, const std::vector<int64_t>& weight_shape, size_t first, StoredValues stored);

// Result of a·b, or false if it does not fit.
bool multiply(int64_t a, int64_t b, int64_t* product);

}  // namespace scalpel
