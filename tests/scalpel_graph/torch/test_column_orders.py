"""Groups in the order in which a microcontroller stores activations."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from models.paper.networks import TORCH_NETWORKS
from models.paper.onnx_files import weights_of
from scalpel_graph import InputError, channels_last
from scalpel_graph.api import understood
from scalpel_graph.channels_last import ChannelsLast
from scalpel_graph.pruning.structure import Groups
from scalpel_graph.torch import GroupPruner, export_onnx, insert_masks, mask_layers
from scalpel_graph.torch.column_orders import column_orders
from scalpel_graph.torch.layers import select_layers
from tests.mcu_networks import quantized
from tests.scalpel_graph.mcu.test_choose import stored_groups


class Functional(nn.Module):
    """Pooling, activations and flattening as functions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, dilation=2)
        self.sequence = nn.Conv1d(5, 4, 3)
        self.fc1 = nn.Linear(5 * 9, 8)
        self.fc2 = nn.Linear(8, 6)
        self.fc3 = nn.Linear(4 * 7, 6)

    def forward(self, x):
        image = nn.functional.max_pool2d(self.conv(x), 2).relu()
        features = nn.functional.dropout(image.reshape(len(x), -1), training=self.training)
        rows = self.sequence(image.flatten(2)).relu_()
        return self.fc2(torch.tanh(self.fc1(features))) + self.fc3(rows.view(len(x), -1))


class Joined(nn.Module):
    """A layer that reads two flattened images, one after the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 4 + 16, 2)

    def forward(self, x):
        return self.fc(torch.cat([self.conv(x).flatten(1), x.flatten(1)], 1))


def orders_of(model, *shape):
    return column_orders(model, select_layers(model, ["*"]), torch.randn(2, *shape))


@pytest.mark.parametrize(
    ("network", "shape"), [("lenet-300-100", (1, 28, 28)), ("lenet-5", (1, 28, 28)), ("convnet", (3, 32, 32))]
)
def test_the_same_as_of_the_exported_network(network, shape, tmp_path):
    model = TORCH_NETWORKS[network]()
    export_onnx(model, torch.randn(2, *shape), tmp_path / "x.onnx")
    exported = channels_last.column_orders(understood(onnx.load(tmp_path / "x.onnx")), {})
    found = orders_of(model, *shape)
    assert list(found.values()) == list(exported.values())
    assert len(found) == len(weights_of(onnx.load(tmp_path / "x.onnx")))


def test_modules_that_write_no_modules_for_what_they_do():
    assert orders_of(Functional(), 3, 10, 10) == {
        "conv": ChannelsLast(9, 9),
        "sequence": ChannelsLast(3),
        "fc1": ChannelsLast(9),
        "fc2": ChannelsLast(),
        "fc3": ChannelsLast(7),
    }


def test_an_image_that_the_first_layer_flattens():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 4))
    assert orders_of(model, 3, 4, 4) == {"1": ChannelsLast(16)}


def test_an_order_that_is_not_one_images_stays():
    assert orders_of(Joined(), 1, 4, 4)["fc"] == ChannelsLast()


def test_the_model_is_left_as_it_was():
    model = Functional().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    orders_of(model, 3, 10, 10)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model(torch.randn(2, 3, 10, 10)).isfinite().all()


@pytest.mark.parametrize(("shape", "rate"), [("1x2", 0.6), ("2x2", 0.5)])
def test_groups_that_a_microcontroller_finds_whole(shape, rate, tmp_path):
    """What `scalpel-opt` counts in the device's order is what was pruned; in PyTorch's order it is more."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 12, 12)
    found = {}
    for in_order in (True, False):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(54, 32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip
        pruner = GroupPruner(model, shape, channels_last=in_order, example_inputs=x)
        pruner.prune_to({"*": rate, "8": 0.3})  # no neuron is dead
        with torch.no_grad():
            for layer in pruner.layers.values():  # rounding makes no further zeros
                layer.weight.copy_(torch.where(layer.weight != 0, layer.weight.sign() + layer.weight, 0))
        export_onnx(model, x, tmp_path / "net.onnx")
        program, _ = quantized(onnx.load(tmp_path / "net.onnx"))
        found[in_order] = list(stored_groups(program, pruner.group_shapes["0"]).values())
        if in_order:
            kept = [int((~saved["pruned"]).sum()) for saved in pruner.state_dict().values()]
    assert found[True] == kept
    assert found[False][0] > kept[0] and found[False][1] > kept[1]


def test_the_least_important_groups_go():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5))
    before = [layer.weight.detach().flatten(1).numpy().copy() for layer in (model[0], model[2])]
    pruner = GroupPruner(model, "1x4", channels_last=True, example_inputs=torch.randn(2, 3, 6, 6))
    pruner.prune_to(0.7)
    orders = (ChannelsLast.of_conv((3, 3)), ChannelsLast(16))
    for layer, weights, order in zip((model[0], model[2]), before, orders, strict=True):
        expected = np.where(Groups((1, 4), order).drop(weights, 0.7), 0, weights)
        np.testing.assert_array_equal(layer.weight.detach().flatten(1).numpy(), expected)


def test_blocked_channels_are_skipped_within_their_order():
    """Of a flattened image: the groups lie along the channels that are left."""
    torch.manual_seed(0)
    x = torch.randn(2, 1, 4, 4)
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 6))
    insert_masks(model, ["1"], x)
    (mask,) = mask_layers(model).values()
    mask.alpha[1] = 0
    pruner = GroupPruner(model, "1x2", layers=["3"], channels_last=True, example_inputs=x)
    pruner.skip_blocked_inputs(x)
    weights = model[3].weight.detach().clone()
    pruner.prune_to(0.5)
    left = weights.reshape(6, 5, 4)[:, [0, 2, 3, 4]].transpose(1, 2).reshape(6, -1).numpy()
    expected = np.where(Groups((1, 2)).drop(left, 0.5), 0, left)
    got = model[3].weight.detach().reshape(6, 5, 4)[:, [0, 2, 3, 4]].transpose(1, 2).reshape(6, -1).numpy()
    np.testing.assert_array_equal(got, expected)
    assert pruner.rate == pytest.approx(0.5)


def test_a_saved_state_holds_the_order(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5)), torch.randn(2, 4, 6, 6)
    first = GroupPruner(model, "1x2", channels_last=True, example_inputs=x)
    first.prune_to(0.5)
    torch.save(first.state_dict(), tmp_path / "pruner.pt")
    second = GroupPruner(model, "1x2", channels_last=True, example_inputs=x)
    second.load_state_dict(torch.load(tmp_path / "pruner.pt", weights_only=True))
    second.prune_to(0.5)
    assert second.rates() == first.rates()


def test_examples_are_needed():
    with pytest.raises(InputError, match=r"^channels_last needs example_inputs, to see what is flattened$"):
        GroupPruner(nn.Linear(4, 4), "1x2", channels_last=True)
