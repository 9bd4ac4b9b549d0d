"""A made-up machine that takes exactly what a profile says: calibration must find its times again."""

from dataclasses import replace
from typing import Any

from scalpel_graph import cost, group_csr
from scalpel_graph.calibration.measure import Job, Sample, resident_bytes
from scalpel_graph.target import CpuTarget, load_target

PROFILE = replace(load_target("avx2"), quantized=load_target("avx512").quantized)


class Machine:
    """Answers as `scalpel_graph.calibration.measure.Measure` does, from the prices of a profile."""

    def __init__(self, target: CpuTarget) -> None:
        self.target = target
        self.jobs: list[Job] = []

    def __call__(self, job: Job, weights: Any) -> dict[str, float]:
        self.jobs.append(job)
        density = group_csr.density(weights, job.group_shape or (1, 1))
        sample = Sample(job, density, {})
        work = replace(job.layer.work, network_bytes=resident_bytes(sample))
        if job.group_shape is not None:
            op_type = "GroupCsrConv" if work.is_conv else "GroupCsrGemm"
            return {op_type: cost.sparse_us(work, job.group_shape, density, self.target, job.threads)}
        if work.quantized:
            prices = self.target.quantized
            assert prices is not None
            times = {"QLinear": cost.dense_us(work, self.target, job.threads)}
            if work.is_conv:
                both = (work.inputs, work.M * work.N)
                times["Transpose"] = sum(cost.quantized_reorder_us(n, prices, job.threads) for n in both)
            return times
        times = {"Conv" if work.is_conv else "Gemm": cost.dense_us(work, self.target, job.threads)}
        if cost.dense_operation(work, self.target.block) in ("pointwise", "conv", "depthwise"):
            times["ReorderInput"] = cost.reorder_us(work.inputs, self.target, job.threads)
            times["ReorderOutput"] = cost.reorder_us(work.M * work.N, self.target, job.threads)
        return times
