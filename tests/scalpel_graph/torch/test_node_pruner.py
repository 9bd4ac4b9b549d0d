import copy

import numpy as np
import pytest
import torch
from torch import nn

from scalpel_graph import InputError
from scalpel_graph.torch import MaskLayer, NodePruner


def model(**settings):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.ReLU(),
        MaskLayer(8, **settings),
        nn.Linear(8, 5),
        nn.ReLU(),
        MaskLayer(5, **settings),
        nn.Linear(5, 3),
    )


def steps(network, optimizer, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        network(torch.randn(4, 6, generator=generator)).square().mean().backward()
        optimizer.step()


def direct(network, count, *, lr, momentum, penalty, seed=1):
    """The rule in numpy: the gradients of β come from torch, all that follows is written out."""
    masks = [m for m in network if isinstance(m, MaskLayer)]
    weights = [p for n, p in network.named_parameters() if not n.endswith("beta")]
    betas = [m.beta.detach().numpy().astype(np.float64) for m in masks]
    velocities = [np.zeros_like(b) for b in betas]
    alphas = [np.ones_like(b) for b in betas]
    optimizer = torch.optim.SGD(weights, lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        network.zero_grad()
        network(torch.randn(4, 6, generator=generator)).square().mean().backward()
        optimizer.step()
        for i, mask in enumerate(masks):
            velocities[i] = momentum * velocities[i] + mask.beta.grad.numpy()
            betas[i] = betas[i] - lr * velocities[i] - penalty * lr
            betas[i] = np.clip(betas[i], 0, mask.maximum)
            alphas[i][betas[i] < mask.threshold] = 0
            alphas[i][betas[i] >= mask.threshold + mask.epsilon] = 1
            with torch.no_grad():
                mask.alpha.copy_(torch.from_numpy(alphas[i]))
    return betas, alphas


OPTIMIZERS = [
    lambda network: torch.optim.SGD(network.parameters(), lr=0.05),
    lambda network: torch.optim.SGD([p for n, p in network.named_parameters() if "beta" not in n], lr=0.05),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["beta too", "weights only"])
@pytest.mark.parametrize("one", [True, False])
def test_beta_follows_the_rule(make, one):
    settings = {"threshold": 0.78, "epsilon": 0.01, "start": 0.8, "maximum": 0.82}
    network, reference = model(**settings), model(**settings)
    pruner = NodePruner(network, 0.02, momentum=0.5)
    optimizer = make(network)
    with pruner.attach(optimizer if one else None):
        steps(network, optimizer, 12)
    betas, alphas = direct(reference, 12, lr=0.05, momentum=0.5, penalty=0.02)
    for mask, beta, alpha in zip(pruner.masks.values(), betas, alphas, strict=True):
        np.testing.assert_allclose(mask.beta.detach(), beta, atol=1e-5)
        np.testing.assert_array_equal(mask.alpha, alpha)
    assert 0 < pruner.kept < 1
    for mine, other in zip(network.parameters(), reference.parameters(), strict=True):
        if mine.ndim > 1:
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=10),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=10),
    ],
)
def test_no_weight_decay_and_no_adam_on_beta(make):
    """The optimizer drives β as hard as it can; without a gradient and a penalty β must not move."""
    network = model()
    with torch.no_grad():
        for layer in (network[0], network[3], network[6]):
            layer.weight.zero_()
            layer.bias.zero_()
    optimizer = make(network.parameters())
    with NodePruner(network, momentum=0.9).attach(optimizer):
        steps(network, optimizer, 5)
    assert (network[2].beta == 0.8002).all()


def test_a_closure_works_too():
    network, other = model(), model()
    x = torch.randn(4, 6)
    pruners = [NodePruner(m, 0.01) for m in (network, other)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (network, other)]

    def closure():
        optimizers[0].zero_grad()
        loss = network(x).square().mean()
        loss.backward()
        return loss

    with pruners[0].attach(), pruners[1].attach():
        for _ in range(3):
            optimizers[0].step(closure)
            optimizers[1].zero_grad()
            other(x).square().mean().backward()
            optimizers[1].step()
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert (network[2].beta != 0.8002).any()


def test_attached_twice_is_attached_once():
    network, other = model(), model()
    for m, times in ((network, 1), (other, 2)):
        pruner = NodePruner(m, 0.01)
        optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
        for _ in range(times):
            pruner.attach(optimizer)
        steps(m, optimizer, 3)
    assert torch.equal(network[2].beta, other[2].beta)


def test_blocked_nodes_come_back():
    """A node whose gradient says that it is missed returns, although it is blocked."""
    network = nn.Sequential(nn.Linear(1, 2, bias=False), MaskLayer(2), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[1].beta[1] = 0.79
        network[2].weight.fill_(1)
    network[1].update()
    assert network[1].alpha.tolist() == [1, 0]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    with NodePruner(network, 0.1).attach(optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            (network(torch.ones(1, 1)) - 2).square().sum().backward()
            optimizer.step()
    assert network[1].alpha.tolist() == [1, 1]


def run(network, wanted, count=60):
    pruner = NodePruner(network, 1.0, wanted=wanted)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    with pruner.attach(optimizer):
        steps(network, optimizer, count)
    return pruner


def test_layers_stop_at_what_was_wanted():
    network = model()
    pruner = run(network, {"2": 0.5, "5": 0.3})
    assert pruner.blocked() == {"2": 0.5, "5": 0.2}
    assert pruner.done
    assert pruner.kept == 8 / 13
    before = copy.deepcopy(network.state_dict())
    with pruner.attach():
        steps(network, torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1), 5)
    for name in ("2", "5"):
        assert torch.equal(network.state_dict()[f"{name}.alpha"], before[f"{name}.alpha"])
    assert not torch.equal(network.state_dict()["0.weight"], before["0.weight"])


def test_one_node_always_stays():
    assert run(model(), None).blocked() == {"2": 7 / 8, "5": 4 / 5}
    assert run(model(), 1.0).blocked() == {"2": 7 / 8, "5": 4 / 5}


def test_nothing_wanted_is_nothing_lost():
    pruner = run(model(), 0.0)
    assert pruner.kept == 1
    assert pruner.done


def test_it_goes_on_from_a_saved_state(tmp_path):
    def stage(pruner, penalty, seed):
        pruner.penalty = penalty
        with pruner.attach():
            steps(pruner.model, torch.optim.SGD(pruner.model.parameters(), lr=0.01), 10, seed)

    wanted = {"5": 0.2}
    whole, first = NodePruner(model(), wanted=wanted), NodePruner(model(), wanted=wanted)
    for pruner in (whole, first):
        stage(pruner, 0.3, 1)
    assert first.masks["5"].frozen and not first.masks["2"].frozen
    torch.save({"model": first.model.state_dict(), "pruner": first.state_dict()}, tmp_path / "stage.pt")
    saved = torch.load(tmp_path / "stage.pt", weights_only=True)
    second = NodePruner(model(), wanted=wanted)
    second.model.load_state_dict(saved["model"])
    second.load_state_dict(saved["pruner"])
    assert second.penalty == 0.3
    for pruner in (whole, second):
        stage(pruner, 0.5, 2)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])


def test_other_mask_layers():
    state = NodePruner(model()).state_dict()
    network = nn.Sequential(nn.Linear(6, 8), MaskLayer(8), nn.Linear(8, 5))
    with pytest.raises(InputError, match=r"^the saved state is of other mask layers: 2, 5; here they are 1$"):
        NodePruner(network).load_state_dict(state)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (
            lambda: NodePruner(nn.Linear(2, 2)),
            r"^the model has no mask layers: place MaskLayer modules, or use",
        ),
        (lambda: NodePruner(model(), -1), r"^the penalty must be at least 0, got -1$"),
        (
            lambda: NodePruner(model(), wanted={"3": 0.5}),
            r"^no mask layer is called '3': there are 2, such as 2, 5$",
        ),
        (
            lambda: NodePruner(model(), wanted=1.1),
            r"^the wanted part of nodes must be between 0 and 1, got 1.1$",
        ),
    ],
)
def test_bad_input(act, says):
    with pytest.raises(InputError, match=says):
        act()
