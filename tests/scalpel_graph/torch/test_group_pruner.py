import numpy as np
import pytest
import torch
from torch import nn

from scalpel_graph import InputError
from scalpel_graph.group_csr import density
from scalpel_graph.pruning.importance import group_importance, zero_least_important
from scalpel_graph.torch import GroupPruner, linear_stages


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))


def convnet():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 12, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12), nn.Flatten(),
        nn.Linear(12 * 16, 3),
    )  # fmt: skip


def matrix(layer):
    return layer.weight.detach().reshape(layer.weight.shape[0], -1).numpy().copy()


def train(model, steps=5, **settings):
    kind = settings.pop("kind", torch.optim.SGD)
    optimizer = kind(model.parameters(), **settings)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("importance", ["rms", "mean", "max"])
@pytest.mark.parametrize(
    ("text", "shape"), [("1x8", (1, 8)), ("4x1", (4, 1)), ("3×5", (3, 5)), ("1x1", (1, 1))]
)
def test_stages_of_one_global_threshold(importance, text, shape):
    """Against numpy: a group goes when its importance is below the threshold, and stays away."""
    model = mlp()
    pruner = GroupPruner(model, text, importance=importance)
    expected = {name: matrix(model[int(name)]) for name in pruner.layers}
    seen = []
    for threshold in linear_stages(0.1, 0.2, 3):
        pruner.prune_below(threshold)
        for name, weights in expected.items():
            keep = group_importance(weights, shape, importance) >= threshold
            rows, columns = weights.shape
            weights[~keep.repeat(shape[0], 0).repeat(shape[1], 1)[:rows, :columns]] = 0
            np.testing.assert_array_equal(matrix(model[int(name)]), weights)
            assert pruner.rates()[name] == pytest.approx((weights == 0).mean())
        total = sum(weights.size for weights in expected.values())
        assert pruner.rate == pytest.approx(
            sum((weights == 0).sum() for weights in expected.values()) / total
        )
        seen.append(pruner.rate)
    assert seen[0] < seen[-1]


def test_rates_of_each_layer():
    model = convnet()
    conv, fc = matrix(model[0]), matrix(model[4])
    pruner = GroupPruner(model, {"*": "2x4", "4": (1, 8)})
    assert list(pruner.layers) == ["0", "4"]
    pruner.prune_to({"*": 0.5, "4": 0.9})
    np.testing.assert_array_equal(matrix(model[0]), zero_least_important(conv, (2, 4), 0.5))
    np.testing.assert_array_equal(matrix(model[4]), zero_least_important(fc, (1, 8), 0.9))


def test_an_overall_rate_takes_the_least_important_groups_of_all_layers():
    model = mlp()
    with torch.no_grad():
        model[0].weight *= 100
    pruner = GroupPruner(model, "1x4")
    pruner.prune_to(0.3, overall=True)
    rates = pruner.rates()
    assert rates["0"] == 0
    sizes = {"2": 192, "4": 48}
    assert sum(rates[n] * size for n, size in sizes.items()) == pytest.approx(168, abs=4)
    assert pruner.rate == pytest.approx(0.3, abs=4 / 560)
    assert pruner.rate <= 0.3
    kept = min(group_importance(matrix(model[int(n)]), (1, 4))[~pruner._groups[n]].min() for n in sizes)
    gone = max(group_importance(matrix(mlp()[int(n)]), (1, 4))[pruner._groups[n]].max() for n in sizes)
    assert gone <= kept


def test_what_is_gone_stays_gone():
    model = mlp()
    pruner = GroupPruner(model, "1x4")
    pruner.prune_to(0.5)
    before = {name: groups.copy() for name, groups in pruner._groups.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    pruner.prune_to(0.2)
    assert pruner.rate == pytest.approx(0.5)
    pruner.prune_to(0.75)
    for name, groups in before.items():
        assert (pruner._groups[name] >= groups).all()
    assert pruner.rate == pytest.approx(0.75)


OPTIMIZERS = [
    {"lr": 0.01},
    {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"kind": torch.optim.Adam, "lr": 0.01},
    {"kind": torch.optim.AdamW, "lr": 0.01, "weight_decay": 0.3},
    {"kind": torch.optim.Adam, "lr": 0.01, "foreach": False, "amsgrad": True},
    {"kind": torch.optim.RMSprop, "lr": 0.01, "momentum": 0.9},
]


@pytest.mark.parametrize("settings", OPTIMIZERS)
@pytest.mark.parametrize("one", [True, False])
def test_zeros_are_held_whatever_the_optimizer(settings, one):
    """The optimizer has momentum from dense training, which would move the zeros if nothing held them."""
    settings = dict(settings)
    model = mlp()
    optimizer = settings.pop("kind", torch.optim.SGD)(model.parameters(), **settings)

    def steps():
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 20)).square().sum().backward()
            optimizer.step()

    steps()
    pruner = GroupPruner(model, "1x4")
    pruner.prune_to(0.5)
    with pruner.attach(optimizer if one else None):
        before = matrix(model[0])
        steps()
        for name in pruner.layers:
            assert density(matrix(model[int(name)]), (1, 4)) == pytest.approx(0.5)
        assert not np.array_equal(before, matrix(model[0]))
    steps()
    assert density(matrix(model[0]), (1, 4)) == 1


def test_steps_of_other_models_are_none_of_its_business():
    model, other = mlp(), mlp()
    pruner = GroupPruner(model, "1x4")
    pruner.prune_to(0.5)
    with pruner.attach():
        with torch.no_grad():
            model[0].weight.fill_(1)
        train(other, lr=0.1)
        assert (model[0].weight == 1).all()
        train(model, steps=1, lr=0.1)
        assert density(matrix(model[0]), (1, 4)) == pytest.approx(0.5)


def test_it_goes_on_from_a_saved_state(tmp_path):
    """Interrupted after a stage and gone on with, or in one go: the same weights."""

    def stage(pruner, threshold):
        pruner.prune_below(threshold)
        torch.manual_seed(int(threshold * 1000))
        with pruner.attach():
            train(pruner.model, lr=0.01, momentum=0.9)

    whole = GroupPruner(mlp(), "1x4")
    first = GroupPruner(mlp(), "1x4")
    for pruner in (whole, first):
        stage(pruner, 0.1)
    torch.save({"model": first.model.state_dict(), "pruner": first.state_dict()}, tmp_path / "stage.pt")

    saved = torch.load(tmp_path / "stage.pt", weights_only=True)
    second = GroupPruner(mlp(), "1x4")
    second.model.load_state_dict(saved["model"])
    second.load_state_dict(saved["pruner"])
    assert second.rates() == first.rates()
    for pruner in (whole, second):
        stage(pruner, 0.15)
    assert second.rate > first.rate
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_saved_state_of_something_else():
    saved = GroupPruner(mlp(), "1x4").state_dict()
    with pytest.raises(InputError, match=r"^the saved state is of other layers: 4 is not in both$"):
        GroupPruner(mlp(), "1x4", exclude=["4"]).load_state_dict(saved)
    with pytest.raises(InputError, match=r"^'0' was saved with groups of 1x4, here they are 1x8$"):
        GroupPruner(mlp(), "1x8").load_state_dict(saved)
    other = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    with pytest.raises(InputError, match=r"^'0' was saved with weights of another shape$"):
        GroupPruner(other, "1x4").load_state_dict(saved)


def test_layers_are_chosen_by_pattern_or_function():
    model = mlp()
    assert list(GroupPruner(model, exclude=["4"]).layers) == ["0", "2"]
    assert list(GroupPruner(model, layers=["[02]"]).layers) == ["0", "2"]
    pruner = GroupPruner(model, lambda name, layer: "1x2" if layer.out_features == 12 else None)
    assert pruner.group_shapes == {"2": (1, 2)}
    assert GroupPruner(model, {"*": "1x2", "0": "4x1"}).group_shapes["0"] == (4, 1)


def test_shared_weights_are_pruned_once():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    pruner = GroupPruner(model, "1x4")
    assert list(pruner.layers) == ["0"]
    pruner.prune_to(0.5)
    assert (model[1].weight == 0).float().mean() == 0.5


def test_half_precision_weights():
    model = nn.Linear(16, 8, dtype=torch.bfloat16)
    wide = matrix(nn.Linear(16, 8).to(torch.bfloat16).float())
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(wide))
    GroupPruner(model, "1x4").prune_to(0.5)
    np.testing.assert_array_equal(matrix(model.float()), zero_least_important(wide, (1, 4), 0.5))


def diverged():
    model = mlp()
    with torch.no_grad():
        model[2].weight[1, 1] = torch.nan
    return GroupPruner(model)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: GroupPruner(mlp(), layers=["fc1"]), "^no Linear, Conv1d or Conv2d .* 'fc1': there are 3"),
        (lambda: GroupPruner(mlp(), exclude=["fc1"]), "is called 'fc1'"),
        (lambda: GroupPruner(mlp(), {"9": "1x8"}), "is called '9'"),
        (lambda: GroupPruner(mlp(), "1by8"), "^group shape must be two positive numbers .*, got '1by8'$"),
        (lambda: GroupPruner(mlp(), (0, 8)), "got '0x8'$"),
        (lambda: GroupPruner(mlp(), (8,)), "got '8'$"),
        (lambda: GroupPruner(mlp(), importance="l2"), "^importance must be one of rms, mean, max, got 'l2'$"),
        (lambda: GroupPruner(mlp(), exclude=["*"]), "^no layer is left to prune: .* excluded$"),
        (lambda: GroupPruner(mlp(), lambda *_: None), "^no layer is left to prune: none was given a"),
        (lambda: GroupPruner(nn.ReLU()), "the model has none$"),
        (lambda: GroupPruner(convnet(), "4x1"), "^'0' cannot be cut into 4x1 groups: blocks of 4 rows"),
        (lambda: GroupPruner(nn.LazyLinear(3)), "has no weights yet: run the model once on an input first$"),
        (
            lambda: GroupPruner(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))),
            "computed from other parameters .* remove that first, or exclude the layer$",
        ),
        (lambda: GroupPruner(mlp()).prune_to(1.2), "^a pruning rate must be between 0 and 1, got 1.2$"),
        (lambda: GroupPruner(mlp()).prune_to(-0.1, overall=True), "^a pruning rate must be between 0 and 1"),
        (lambda: GroupPruner(mlp()).prune_to({"0": float("nan")}), "^a pruning rate must be between 0 and 1"),
        (lambda: GroupPruner(mlp()).prune_to({"0": 0.5}, overall=True), "^an overall rate is one number"),
        (lambda: GroupPruner(mlp()).prune_to({"7": 0.5}), "^no layer of this pruner is called '7'"),
        (lambda: GroupPruner(mlp()).prune_below(-1), "^a threshold must be at least 0, got -1$"),
        (lambda: diverged().prune_below(0.1), "^the weights of '2' are not finite: .* diverged$"),
    ],
)  # fmt: skip
def test_bad_input(act, says):
    with pytest.raises(InputError, match=says) as caught:
        act()
    assert "\n" not in str(caught.value)
