// GroupCsrGemm, GroupCsrScaledGemm and GroupCsrConv on the CPU.
#include <memory>
#include <string>

#include "group_csr_conv.h"
#include "group_csr_gemm.h"
#include "operators.h"

namespace scalpel {
namespace {

class CpuGemm final : public GroupCsrGemm {
 public:
  CpuGemm(const Node& node, Isa isa, StoredValues stored) : GroupCsrGemm(node, stored) {
    std::string error;
    plan_ = make_gemm_plan(layer().matrix(), isa, &error);
    if (plan_ == nullptr) layer().fail(error);
  }

 private:
  void run(Layer::Call& call, int64_t N, float* Y, const Epilogue& epilogue) const override {
    void* workspace = call.workspace(plan_->workspace_bytes(N));
    plan_->run(call.x(), N, Y, epilogue, workspace, call.threads());
    call.finish();
  }

  std::unique_ptr<GemmPlan> plan_;
};

class CpuConv final : public GroupCsrConv {
 public:
  CpuConv(const Node& node, Isa isa) : GroupCsrConv(node) {
    std::string error;
    plan_ = make_conv_plan(layer().matrix(), geometry(), isa, &error);
    if (plan_ == nullptr) layer().fail(error);
  }

 private:
  void run(Layer::Call& call, int64_t batch, int64_t in_h, int64_t in_w, float* Y,
           const Epilogue& epilogue) const override {
    void* workspace = call.workspace(plan_->workspace_bytes(batch, in_h, in_w));
    plan_->run(call.x(), batch, in_h, in_w, Y, epilogue, workspace, call.threads());
    call.finish();
  }

  std::unique_ptr<ConvPlan> plan_;
};

}  // namespace

std::unique_ptr<Kernel> make_gemm(const Node& node, Isa isa) {
  return std::make_unique<CpuGemm>(node, isa, StoredValues::kFloat);
}

std::unique_ptr<Kernel> make_scaled_gemm(const Node& node, Isa isa) {
  return std::make_unique<CpuGemm>(node, isa, StoredValues::kScaled);
}

std::unique_ptr<Kernel> make_conv(const Node& node, Isa isa) { return std::make_unique<CpuConv>(node, isa); }

}  // namespace scalpel
