"""The order of passes for each kind of target: the only list there is.

Facts that the order rests on:

- constants first: later passes ask for constant weights, biases and bounds;
- clean-up early, so that an Identity or a Dropout does not stand between a layer and its BatchNormalization;
- biases before BatchNormalization (Conv, Add, BatchNormalization is common), BatchNormalization before the
  choice of sparse layers, since it scales weights;
- channels go after that, when their constants end in one bias, and before layers are chosen by their size;
- on a CPU, LRN is expanded before that, and channels between others can then go; it comes together again
  before layers are chosen: what it was made of is then no layer, and stays in the plain layout;
- on a GPU that is all, what is left stays dense, unless the profile has prices of sparse kernels;
- on a microcontroller everything then becomes integers at once, dense or sparse;
- only a model with layers worth making sparse is brought to the opset that this needs;
- fusion into a sparse operator last, in the order that the operator computes: bias, residual, activation.
"""

from scalpel_graph.passes.base import Pass
from scalpel_graph.passes.clean_up import CleanUp
from scalpel_graph.passes.expand_lrn import ExpandLrn
from scalpel_graph.passes.fold_batchnorm import FoldBatchNorm
from scalpel_graph.passes.fold_constants import FoldConstants
from scalpel_graph.passes.fold_shapes import FoldShapes
from scalpel_graph.passes.fuse_activation import FuseActivation
from scalpel_graph.passes.fuse_bias import FuseBias
from scalpel_graph.passes.fuse_gate import FuseGate
from scalpel_graph.passes.fuse_lrn import FuseLrn
from scalpel_graph.passes.fuse_quantized_residual import FuseQuantizedResidual
from scalpel_graph.passes.fuse_residual import FuseResidual
from scalpel_graph.passes.move_quantization import MoveQuantization
from scalpel_graph.passes.quantize import Quantize
from scalpel_graph.passes.raise_opset import RaiseOpset
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.passes.substitute_group_csr import SubstituteGroupCsr
from scalpel_graph.passes.substitute_quantized import SubstituteQuantized
from scalpel_graph.target import GpuTarget, Target


def pipeline_for(target: Target) -> list[Pass]:
    """The passes to run for a target, in order."""
    kind = "gpu with kernels" if isinstance(target, GpuTarget) and target.kernels else target.kind
    return _PIPELINES[kind]()


def list_passes() -> list[Pass]:
    """Every pass there is, once, in the order they run."""
    passes: dict[str, Pass] = {}
    for make in _PIPELINES.values():
        for step in make():
            passes.setdefault(step.name, step)
    return list(passes.values())


def _narrow() -> list[Pass]:
    """What every kind of target has in common."""
    return [
        FoldConstants(),
        FoldShapes(),
        CleanUp(),
        FuseBias(),
        FoldBatchNorm(),
        RemoveChannels(),
    ]


def _sparse() -> list[Pass]:
    """Choice of sparse layers, and what belongs into them."""
    return [
        SubstituteGroupCsr(),
        FuseBias(),
        FuseResidual(),
        FuseActivation(),
        FuseGate(),
        CleanUp(),
    ]


def _cpu() -> list[Pass]:
    return [
        ExpandLrn(),
        *_narrow(),
        RaiseOpset(),
        FuseLrn(),
        MoveQuantization(),
        SubstituteQuantized(),
        FuseQuantizedResidual(),
        *_sparse(),
    ]


def _gpu() -> list[Pass]:
    return [
        *_narrow(),
        CleanUp(),
    ]


def _gpu_with_kernels() -> list[Pass]:
    return [
        *_narrow(),
        RaiseOpset(),
        *_sparse(),
    ]


def _mcu() -> list[Pass]:
    return [
        *_narrow(),
        CleanUp(),
        Quantize(),
    ]


_PIPELINES = {"cpu": _cpu, "gpu": _gpu, "gpu with kernels": _gpu_with_kernels, "mcu": _mcu}
