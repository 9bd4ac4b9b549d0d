// Output shapes from input shapes, while ONNX Runtime loads a model.
#pragma once

#include "abi.h"

namespace scalpel {

// All keep symbolic dimensions, and leave the output's shape open where X or the attributes do not settle it:
// what is wrong with a node is reported when its kernel is created, in better words than here.
void infer_gemm_shape(const OrtApi& api, OrtShapeInferContext& context);
void infer_conv_shape(const OrtApi& api, OrtShapeInferContext& context);
void infer_lrn_shape(const OrtApi& api, OrtShapeInferContext& context);
// The integer operators: outputs are int16, where those above are float32.
void infer_q_gemm_shape(const OrtApi& api, OrtShapeInferContext& context);
void infer_q_conv_shape(const OrtApi& api, OrtShapeInferContext& context);
// Outputs are of the type of X.
void infer_qlinear_gemm_shape(const OrtApi& api, OrtShapeInferContext& context);
void infer_qlinear_conv_shape(const OrtApi& api, OrtShapeInferContext& context);

}  // namespace scalpel
