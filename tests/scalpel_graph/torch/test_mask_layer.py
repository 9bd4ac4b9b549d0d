import copy

import numpy as np
import pytest
import torch

from scalpel_graph import InputError
from scalpel_graph.torch import MaskLayer, mask_layers


def block(mask, *nodes):
    with torch.no_grad():
        mask.alpha[list(nodes)] = 0
    return mask


def test_blocked_nodes_give_zero():
    x = torch.randn(3, 4, 5, 5)
    y = block(MaskLayer(4), 1, 2)(x)
    assert torch.equal(y[:, [0, 3]], x[:, [0, 3]])
    assert not y[:, [1, 2]].any()


@pytest.mark.parametrize(("shape", "dim"), [((6, 4), 1), ((2, 4, 3), 1), ((2, 3, 4), -1), ((4,), 0)])
def test_the_gradient_is_what_would_change_if_the_node_were_let_through(shape, dim):
    """The loss is linear in the mask's output, so letting all of a node through adds exactly its gradient."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    weights = torch.randn(shape, dtype=torch.float64)
    mask = block(MaskLayer(4, dim).double(), 1, 3)

    def loss():
        return (weights * mask(x)).sum()

    loss().backward()
    for node in range(4):
        on, off = copy.deepcopy(mask), copy.deepcopy(mask)
        with torch.no_grad():
            on.alpha[node], off.alpha[node] = 1, 0
            change = (weights * on(x)).sum() - (weights * off(x)).sum()
        assert mask.beta.grad[node].item() == pytest.approx(change.item(), rel=1e-12)


def test_the_gradient_of_the_input_stops_at_blocked_nodes():
    x = torch.randn(3, 4, requires_grad=True)
    block(MaskLayer(4), 2)(x).sum().backward()
    assert torch.equal(x.grad, torch.tensor([1.0, 1.0, 0.0, 1.0]).expand(3, 4))


def test_hysteresis():
    """A node moves at T going down and at T + ε going up, and keeps its state in between."""
    mask = MaskLayer(1, threshold=0.5, epsilon=0.1, start=0.6, maximum=1)
    path = [0.65, 0.55, 0.5, 0.45, 0.55, 0.59, 0.61, 0.55, 0.49, 0.6]
    alphas = []
    for beta in path:
        with torch.no_grad():
            mask.beta.fill_(beta)
        mask.update()
        alphas.append(int(mask.alpha))
    assert alphas == [1, 1, 1, 0, 0, 0, 1, 1, 0, 1]


def test_the_released_constants():
    mask = MaskLayer(2)
    assert mask.beta.tolist() == pytest.approx([0.8002] * 2)
    with torch.no_grad():
        mask.beta.copy_(torch.tensor([0.79999, 0.80001]))
    mask.update()
    assert mask.alpha.tolist() == [0, 1]
    with torch.no_grad():
        mask.beta.copy_(torch.tensor([0.80005, 0.80005]))
    mask.update()
    assert mask.alpha.tolist() == [0, 1]
    with torch.no_grad():
        mask.beta.copy_(torch.tensor([0.80011, 0.80011]))
    mask.update()
    assert mask.alpha.tolist() == [1, 1]


def test_beta_is_kept_in_its_range():
    mask = MaskLayer(3)
    with torch.no_grad():
        mask.beta.copy_(torch.tensor([-3.0, 0.5, 7.0]))
    mask.update()
    np.testing.assert_allclose(mask.beta.detach(), [0, 0.5, 0.802], rtol=1e-6)


def test_no_more_than_allowed_are_blocked_and_those_with_the_least_beta():
    mask = MaskLayer(4)
    with torch.no_grad():
        mask.beta.copy_(torch.tensor([0.3, 0.1, 0.8002, 0.2]))
    mask.update(most=2)
    assert mask.alpha.tolist() == [1, 0, 1, 0]
    mask.update(most=0)
    assert mask.blocked == 0
    mask.update()
    assert mask.blocked == 3


def test_a_frozen_mask_does_not_change():
    mask = block(MaskLayer(3), 0)
    mask.freeze()
    with torch.no_grad():
        mask.beta.fill_(0)
    mask.update()
    assert mask.alpha.tolist() == [0, 1, 1]
    x = torch.randn(2, 3, requires_grad=True)
    mask(x).sum().backward()
    assert mask.beta.grad is None
    assert x.grad[0].tolist() == [0, 1, 1]


def test_half_precision_stays_half():
    assert MaskLayer(3)(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_it_is_found_by_name():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), MaskLayer(3), torch.nn.Linear(3, 3))
    assert list(mask_layers(model)) == ["1"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MaskLayer(0), "at least one node, got 0"),
        (lambda: MaskLayer(2, start=0.5), "threshold \\+ epsilon <= start"),
        (lambda: MaskLayer(2, maximum=0.8), "start <= maximum"),
        (
            lambda: MaskLayer(2)(torch.ones(2, 3)),
            "^a mask layer of 2 nodes in dimension 1 got .* \\[2, 3\\]$",
        ),
        (lambda: MaskLayer(2)(torch.ones(2)), "in dimension 1 got an input of shape \\[2\\]$"),
    ],
)
def test_bad_input(make, says):
    with pytest.raises(InputError, match=says):
        make()
