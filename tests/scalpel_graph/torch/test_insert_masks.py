import copy
import functools
import pickle

import pytest
import torch
from torch import nn

from scalpel_graph import InputError
from scalpel_graph.torch import MaskLayer, insert_masks, mask_layers

X = torch.randn(2, 3, 8, 8)


class Branching(nn.Module):
    """Modules used out of order, a control flow, an activation used twice, and a tuple."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 4)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
        self.relu, self.pool, self.twice = nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Tanh()
        self.conv2 = nn.Conv2d(6, 4, 3)
        self.idle, self.pair = nn.ReLU(), Pair()
        self.softmax = nn.Softmax(-1)

    def forward(self, x):
        x = self.twice(self.relu(self.body(x)))
        if x.ndim == 4:
            x = self.twice(self.conv2(x))
        x, _ = self.pair(x)
        return self.softmax(self.fc(self.pool(x).flatten(1)))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def block(mask, *nodes):
    with torch.no_grad():
        mask.alpha[list(nodes)] = 0


@pytest.mark.parametrize("after", ["relu", "body", "body.1"])
def test_a_mask_behind_any_module_acts_on_its_output(after):
    model = Branching().eval()
    names = set(model.state_dict())
    plain = model(X)
    masks = insert_masks(model, [after], X)
    assert list(masks) == [f"{after}.mask"]
    assert set(model.state_dict()) - names == {f"{after}.mask.alpha", f"{after}.mask.beta"}
    mask = masks[f"{after}.mask"]
    assert mask.nodes == 6
    assert torch.equal(model(X), plain)
    block(mask, 1, 4)
    seen = []
    model.conv2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert not torch.equal(model(X), plain)
    dead = [not seen[0][:, channel].any() for channel in range(6)]
    if after == "relu":
        assert dead == [False, True, False, False, True, False]
    expected = Branching().eval()
    expected.load_state_dict(model.state_dict(), strict=False)
    expected.get_submodule(after).register_forward_hook(lambda m, a, y: y * mask.alpha.view(1, 6, 1, 1))
    assert torch.equal(model(X), expected(X))


def test_copies_and_pickles_have_masks_of_their_own():
    model = Branching().eval()
    masks = insert_masks(model, ["relu"], X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        block(mask_layers(other)["relu.mask"], *range(6))
        assert not torch.equal(other(X), model(X))
    assert masks["relu.mask"].blocked == 0


def test_dimensions_patterns_and_a_make_of_ones_own():
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2))
    masks = insert_masks(
        model, {"[13]": -1}, torch.randn(2, 9, 5), make=functools.partial(MaskLayer, maximum=0.82)
    )
    assert {name: (mask.nodes, mask.dim, mask.maximum) for name, mask in masks.items()} == {
        "1.mask": (7, -1, 0.82),
        "3.mask": (6, -1, 0.82),
    }


def test_the_example_run_leaves_no_traces():
    model = Branching()
    model.body.eval()
    before = copy.deepcopy(model.state_dict())
    insert_masks(model, ["relu"], {"x": X})
    assert model.training and model.relu.training and not model.body.training
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value)
    assert [len(module._forward_hooks) for module in (model, model.relu, model.fc)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (["rellu"], r"^no module is called 'rellu': did you mean 'relu'\?$"),
        ([], r"^no module was named"),
        (["twice"], r"^'twice' runs 2 times, .* give each place its own module$"),
        (["idle"], r"^'idle' runs 0 times"),
        (["pair"], r"^'pair' gives a tuple, not one tensor$"),
        ({"pool": 4}, r"^'pool' gives a tensor of shape \[2, 4, 2, 2\], without dimension 4$"),
        (["fc"], r"^no weights come behind 'fc': it belongs to the output layer"),
        (["softmax"], r"^no weights come behind 'softmax'"),
    ],
)
def test_bad_input(after, says):
    model = Branching()
    with pytest.raises(InputError, match=says):
        insert_masks(model, after, X)
    assert not mask_layers(model)


def test_one_mask_is_enough():
    model = Branching()
    insert_masks(model, "relu", X)
    with pytest.raises(InputError, match=r"^'relu' has a child called 'mask' already$"):
        insert_masks(model, "relu", X)
