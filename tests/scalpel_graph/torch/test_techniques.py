import pytest
import torch
from torch import nn

from scalpel_graph.torch import (
    DropoutScaler,
    GroupPruner,
    NodePruner,
    combined_pruning,
    insert_masks,
    linear_stages,
    mask_layers,
    node_pruning,
    simd_aware_pruning,
)

X = torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16 * 16, 16),
        nn.ReLU(),
        nn.Linear(16, 2),
    )


class Trainer:
    """Trains with a fresh optimizer each time, and notes what it was asked to do."""

    def __init__(self):
        self.epochs = []
        self.dropout = []

    def __call__(self, network, epochs):
        self.epochs.append(epochs)
        self.dropout.append(network[3].p)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        for _ in range(epochs):
            optimizer.zero_grad()
            network(X).sub(1).square().mean().backward()
            optimizer.step()


def test_simd_aware_pruning():
    network, train, rates = model(), Trainer(), []
    pruner = GroupPruner(network, "1x8", layers=["4"])
    simd_aware_pruning(
        pruner,
        train,
        linear_stages(0.03, 0.036, 3),
        epochs=2,
        dropout=DropoutScaler(network),
        on_stage=lambda p: rates.append(p.rate),
    )
    assert train.epochs == [2, 2, 2]
    assert 0 < rates[0] < rates[-1] < 1
    assert train.dropout == pytest.approx([0.5 * (1 - rate) ** 0.5 for rate in rates])
    assert (network[4].weight == 0).float().mean().item() == pytest.approx(rates[-1])
    train(network, 1)
    assert (network[4].weight == 0).float().mean().item() < rates[-1] / 2


def test_node_pruning():
    network, train, kept = model(), Trainer(), []
    insert_masks(network, ["1", "5"], X)
    pruner = NodePruner(network, wanted={"1.mask": 0.25, "5.mask": 0.5})
    node_pruning(
        pruner,
        train,
        [0.0, 0.002, 0.02, 0.1],
        epochs=4,
        retrain_epochs=3,
        dropout=DropoutScaler(network),
        on_stage=lambda p: kept.append(p.kept),
    )
    assert pruner.blocked() == {"1.mask": 0.25, "5.mask": 0.5}
    assert train.epochs[-1] == 3
    assert train.epochs[:-1] == [4] * (len(kept) - 1)
    assert kept[-1] == kept[-2] == 20 / 32
    assert train.dropout[0] == 0.5
    assert train.dropout[-1] == pytest.approx(0.5 * 20 / 32)
    assert all(mask.frozen for mask in mask_layers(network).values())


def test_stages_after_the_last_node_are_left_out():
    network, train = model(), Trainer()
    insert_masks(network, ["1"], X)
    node_pruning(NodePruner(network, wanted=0.5), train, [1.0, 2.0, 3.0], epochs=20, retrain_epochs=0)
    assert train.epochs == [20]


def test_combined():
    """Nodes of the convolution go first, then groups of the fully connected layers; both stay gone."""
    network, train, at_work = model(), Trainer(), []
    insert_masks(network, ["1"], X)
    nodes = NodePruner(network, wanted=0.5)
    groups = GroupPruner(network, "1x8", layers=["4"])
    combined_pruning(
        nodes,
        groups,
        train,
        [0.5, 1.0],
        [0.03, 0.035],
        epochs=10,
        retrain_epochs=5,
        on_stage=lambda pruner: at_work.append(type(pruner)),
    )
    assert at_work == [NodePruner] * (len(at_work) - 2) + [GroupPruner] * 2
    assert nodes.blocked() == {"1.mask": 0.5}
    assert groups.rate == pytest.approx((network[4].weight == 0).float().mean().item())
    assert groups.rate > 0.3
    assert train.epochs[-3:] == [5, 10, 10]


def test_combined_goes_on_where_it_was():
    """Interrupted after the first stage of groups: the second leaves the blocked inputs skipped."""
    network, train = model(), Trainer()
    insert_masks(network, ["1"], X)
    nodes = NodePruner(network, wanted=0.5)
    groups = GroupPruner(network, "1x8", layers=["4"])
    epochs = {"epochs": 10, "retrain_epochs": 0, "example_inputs": X}
    combined_pruning(nodes, groups, train, [1.0], [0.03], **epochs)

    again = model()
    insert_masks(again, ["1"], X)
    again.load_state_dict(network.state_dict())
    second, more = NodePruner(again, wanted=0.5), GroupPruner(again, "1x8", layers=["4"])
    second.load_state_dict(nodes.state_dict())
    more.load_state_dict(groups.state_dict())
    assert second.done
    combined_pruning(second, more, train, [1.0], [0.04], **epochs)
    assert more.rate > groups.rate > 0
    columns = more.state_dict()["4"]["columns"]
    assert len(columns) == again[4].in_features - 8 * 16
    assert (again[4].weight[:, columns] == 0).float().mean().item() == pytest.approx(more.rate)
    assert train.epochs == [10, 10, 10]
