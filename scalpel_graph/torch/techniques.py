"""The techniques of the Scalpel paper, put together from the pieces; training itself is the caller's."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from scalpel_graph.torch.dropout import DropoutScaler
from scalpel_graph.torch.group_pruner import GroupPruner
from scalpel_graph.torch.node_pruner import NodePruner

#: Trains a model for a number of epochs, with an optimizer of its own making.
Train = Callable[[nn.Module, int], object]


def simd_aware_pruning(
    pruner: GroupPruner,
    train: Train,
    thresholds: Iterable[float],
    *,
    epochs: int,
    dropout: DropoutScaler | None = None,
    on_stage: Callable[[GroupPruner], object] | None = None,
) -> None:
    """Prunes the groups under a threshold and retrains the others, for rising thresholds.

    Source: Scalpel (Yu et al., ISCA 2017), SIMD-aware weight pruning. To go on with a run that was
    interrupted, load the states of model and pruner and give the thresholds that are left.

    Args:
        pruner: says what is pruned, in which groups. Its zeros are held in every step of every optimizer that
            drives a parameter of its model.
        train: ``train(model, epochs)`` retrains the model.
        thresholds: one for each stage, such as ``linear_stages(0.04, 0.08, 5)``.
        epochs: of each stage.
        dropout: is scaled by the weights that are kept, before each retraining.
        on_stage: is called after each stage, to save or to report.
    """
    with pruner.attach():
        for threshold in thresholds:
            pruner.prune_below(threshold)
            if dropout is not None:
                dropout.scale(1 - pruner.rate, "weights")
            train(pruner.model, epochs)
            if on_stage is not None:
                on_stage(pruner)


def node_pruning(
    pruner: NodePruner,
    train: Train,
    penalties: Iterable[float],
    *,
    epochs: int,
    retrain_epochs: int,
    dropout: DropoutScaler | None = None,
    on_stage: Callable[[NodePruner], object] | None = None,
) -> None:
    """Trains with rising penalties on the nodes, then freezes the masks and retrains what is left.

    Source: Scalpel (Yu et al., ISCA 2017), node pruning. Blocked nodes stay in the model, masked;
    ``scalpel-opt`` removes them from what `export_onnx` writes. To go on with a run that was interrupted,
    load the states of model and pruner and give the penalties that are left.

    Args:
        pruner: drives the masks in every step of every optimizer that drives a parameter of its model.
        train: ``train(model, epochs)`` trains the model.
        penalties: ``λ`` of each stage; stages after the one in which every layer has lost what was wanted are
            left out.
        epochs: of each stage.
        retrain_epochs: with frozen masks, in the end; 0 for none.
        dropout: is scaled by the nodes that are kept, before retraining.
        on_stage: is called after each stage and after retraining, to save or to report.
    """
    with pruner.attach():
        for penalty in penalties:
            if pruner.done:
                break
            pruner.penalty = penalty
            train(pruner.model, epochs)
            if on_stage is not None:
                on_stage(pruner)
    pruner.freeze()
    if dropout is not None:
        dropout.scale(pruner.kept, "nodes")
    if retrain_epochs:
        train(pruner.model, retrain_epochs)
        if on_stage is not None:
            on_stage(pruner)


def combined_pruning(
    nodes: NodePruner,
    groups: GroupPruner,
    train: Train,
    penalties: Iterable[float],
    thresholds: Iterable[float],
    *,
    epochs: int,
    retrain_epochs: int,
    example_inputs: Any = None,
    on_stage: Callable[[NodePruner | GroupPruner], object] | None = None,
) -> None:
    """Node pruning, then SIMD-aware pruning of the same model: the paper's choice for CPUs.

    There the nodes are those of the convolutions, and the groups those of the fully connected layers. To go
    on with a run that was interrupted, load the states of the model and of both pruners and give the stages
    that are left.

    Args:
        nodes: as in `node_pruning`.
        groups: as in `simd_aware_pruning`; of the same model.
        train: ``train(model, epochs)`` trains the model.
        penalties: of the nodes, one for each stage.
        thresholds: of the groups, one for each stage.
        epochs: of each stage.
        retrain_epochs: between the two; 0 for none.
        example_inputs: of the model; if given, blocked inputs are skipped before the first group goes, so
            that groups are aligned in what ``scalpel-opt`` leaves: see `GroupPruner.skip_blocked_inputs`.
        on_stage: is called after each stage with the pruner at work.
    """
    node_pruning(nodes, train, penalties, epochs=epochs, retrain_epochs=retrain_epochs, on_stage=on_stage)
    if example_inputs is not None and not groups.rate:
        groups.skip_blocked_inputs(example_inputs)
    simd_aware_pruning(groups, train, thresholds, epochs=epochs, on_stage=on_stage)
