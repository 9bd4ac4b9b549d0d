import onnx
import pytest
import torch
from torch import nn

import scalpel_graph as sg
from scalpel_graph import InputError
from scalpel_graph.group_csr import density
from scalpel_graph.torch import GroupPruner, MaskLayer, export_onnx
from scalpel_graph.torch.blocked_inputs import blocked_inputs
from scalpel_graph.torch.layers import select_layers

X = torch.randn(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))


def blocking(nodes, *blocked):
    mask = MaskLayer(nodes)
    with torch.no_grad():
        mask.alpha[list(blocked)] = 0
    mask.freeze()
    return mask


def network():
    """Three positions in a row and five weights in a group: removing a channel shifts groups."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        blocking(16, *range(1, 9)),
        nn.Conv2d(16, 16, 2),
        nn.BatchNorm2d(16),
        nn.Sigmoid(),
        blocking(16, 0, *range(2, 9)),
        nn.Flatten(),
        nn.Linear(16 * 4, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


def blocked(model, example=X):
    return blocked_inputs(model, select_layers(model, ["*"]).values(), example)


def test_columns_that_read_blocked_channels():
    found = blocked(network())
    assert list(found) == ["4", "9"]
    channels = torch.arange(16)
    first = (channels >= 1) & (channels < 9)
    assert torch.equal(found["4"], first.repeat_interleave(4))
    second = (channels == 0) | ((channels >= 2) & (channels < 9))
    assert torch.equal(found["9"], second.repeat_interleave(4))


def test_zeros_that_no_mask_made_do_not_count():
    model = network()
    with torch.no_grad():
        model[0].weight[12] = 0
        model[0].bias[12] = -1
    assert not blocked(model)["4"].reshape(16, 4)[12].any()


def test_what_gets_something_else_added_is_not_blocked():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.mask, self.fc = blocking(4, 1, 2), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.mask(x) + x)

    assert blocked(Residual(), torch.randn(5, 4)) == {}


def test_the_trace_leaves_no_traces():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blocked(model)
    assert model.training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("skip", [True, False])
def test_groups_are_aligned_once_blocked_nodes_are_removed(tmp_path, skip):
    """In what the optimizer leaves: groups are full or empty, if blocked inputs are skipped."""
    model = network()
    pruner = GroupPruner(model, {"4": "1x5", "9": "1x5"})
    if skip:
        pruner.skip_blocked_inputs(X)
    pruner.prune_to(0.5)
    export_onnx(model, X, tmp_path / "net.onnx")
    result = sg.optimize(tmp_path / "net.onnx", target="gpu")
    tensors = [onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer]
    conv, fc = (
        next(t.reshape(len(t), -1) for t in tensors if t.shape == shape) for shape in ((8, 8, 2, 2), (12, 32))
    )
    for weights in (conv, fc):
        full = weights.shape[1] // 5
        sizes = (weights != 0)[:, : full * 5].reshape(-1, full, 5).sum(2)
        assert ((sizes == 0) | (sizes == 5)).all() == skip
    assert (density(fc, (1, 5)) < 0.6) == skip


def test_rates_are_of_the_weights_that_are_left():
    model = network()
    weight = model[9].weight.detach().clone()
    pruner = GroupPruner(model, "1x4", layers=["9"])
    pruner.skip_blocked_inputs(X)
    pruner.prune_to(0.5)
    assert pruner.rate == 0.5
    assert pruner.rates() == {"9": 0.5}
    skipped = blocked(model)["9"]
    assert torch.equal(model[9].weight[:, skipped], weight[:, skipped])
    assert (model[9].weight[:, ~skipped] == 0).float().mean() == 0.5


def test_it_goes_on_from_a_saved_state():
    first = GroupPruner(network(), "1x5", layers=["4", "9"])
    first.skip_blocked_inputs(X)
    first.prune_to(0.5)
    second = GroupPruner(network(), "1x5", layers=["4", "9"])
    second.load_state_dict(first.state_dict())
    assert second.rates() == first.rates()
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_not_after_something_was_pruned():
    pruner = GroupPruner(network(), "1x4", layers=["9"])
    pruner.prune_to(0.5)
    with pytest.raises(InputError, match=r"^groups cannot be cut anew after some were pruned"):
        pruner.skip_blocked_inputs(X)
