#include <algorithm>

#include "error.h"
#include "operators.h"

namespace scalpel {
namespace {

// Input positions; see scalpel_graph/windowed_lrn.py.
enum Input : size_t { kX, kWindowBegin, kWindowEnd, kBias };

class Lrn final : public Kernel {
 public:
  Lrn(const Node& node, Isa isa) : Kernel(node.api()), label_(node.label()) {
    const std::vector<int64_t> weight = node.ints_attribute("weight_shape");
    const bool is_square = weight.size() > 2 && weight[0] == weight[1] && weight[0] >= 1;
    if (!is_square || std::any_of(weight.begin() + 2, weight.end(), [](int64_t size) { return size != 1; })) {
      node.fail("weight_shape " + to_string(weight) + " must be [C, C, 1, ...] with a 1 for each spatial dimension");
    }
    rank_ = weight.size();
    lrn_.channels = weight[0];
    lrn_.window_begin = read<int32_t>(node, kWindowBegin, "window_begin", kOrtInt32, "int32");
    lrn_.window_end = read<int32_t>(node, kWindowEnd, "window_end", kOrtInt32, "int32");
    lrn_.bias = read<float>(node, kBias, "bias", kOrtFloat, "float32");
    lrn_.alpha = node.float_attribute("alpha");
    lrn_.beta = node.float_attribute("beta");
    std::string error;
    plan_ = make_lrn_plan(lrn_, isa, &error);
    if (plan_ == nullptr) node.fail(error);
  }

  void compute(OrtKernelContext& context) const override {
    OperatorCall call(api(), label_, context);
    Shape shape;
    const float* X = call.input(kX, &shape);
    if (shape.rank != rank_ || shape.dims[1] != lrn_.channels) {
      throw Error(label_ + ": X " + to_string(shape.dims, shape.rank) + " must have the shape [N, " +
                  std::to_string(lrn_.channels) + ", ...] with " + std::to_string(rank_) + " dimensions");
    }
    float* Y = call.output(shape);
    int64_t pixels = 1;  // does not overflow where there are any: the output is in memory
    if (std::find(shape.dims, shape.dims + shape.rank, 0) != shape.dims + shape.rank) return;
    for (size_t i = 2; i < shape.rank; ++i) pixels *= shape.dims[i];
    plan_->run(X, shape.dims[0], pixels, Y, call.threads());
    call.finish();
  }

 private:
  template <typename Element>
  const Element* read(const Node& node, size_t index, const char* name, OrtElementType type,
                      const char* type_name) const {
    const Tensor tensor = node.constant(index, name);
    if (tensor.type != type || tensor.dims.size() != 1 || tensor.dims[0] != lrn_.channels) {
      node.fail(std::string(name) + " must be " + type_name + " [" + std::to_string(lrn_.channels) + "], got " +
                describe(tensor));
    }
    return static_cast<const Element*>(tensor.data);
  }

  const std::string label_;
  size_t rank_ = 0;
  LrnView lrn_;
  std::unique_ptr<LrnPlan> plan_;
};

}  // namespace

std::unique_ptr<Kernel> make_lrn(const Node& node, Isa isa) { return std::make_unique<Lrn>(node, isa); }

}  // namespace scalpel
