import numpy as np
import pytest
import torch
from onnx import numpy_helper

from models import NETWORKS
from models.paper.masks import mask_places, shares
from models.paper.networks import TORCH_NETWORKS, LocalResponseNorm
from models.paper.onnx_files import with_weights
from scalpel_graph.errors import InputError
from scalpel_graph.session import session


@pytest.mark.parametrize("name", TORCH_NETWORKS)
def test_layers_are_those_of_the_onnx_network(name):
    arrays = {t.name: numpy_helper.to_array(t) for t in NETWORKS[name].build().graph.initializer}
    state = TORCH_NETWORKS[name]().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        key: array.shape for key, array in arrays.items()
    }


@pytest.mark.parametrize("name", TORCH_NETWORKS)
def test_computes_what_the_onnx_network_does(name):
    torch.manual_seed(1)
    model = TORCH_NETWORKS[name]().eval()
    exported = with_weights(name, {key: value.numpy() for key, value in model.state_dict().items()})
    x = NETWORKS[name].sample_input(batch=3)
    (y,) = session(exported).run(None, {"input": x})
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_weights_must_fit():
    arrays = {key: value.numpy() for key, value in TORCH_NETWORKS["lenet-5"]().state_dict().items()}
    with pytest.raises(InputError, match=r"no weights for 'conv2.bias'"):
        with_weights("lenet-5", {key: value for key, value in arrays.items() if key != "conv2.bias"})
    with pytest.raises(InputError, match=r"'fc2.bias' has shape \[10\], the weights have \[9\]"):
        with_weights("lenet-5", arrays | {"fc2.bias": np.zeros(9, np.float32)})


@pytest.mark.parametrize(("size", "alpha", "beta"), [(3, 5e-5, 0.75), (5, 0.3, 0.5), (4, 2.0, 1.0)])
def test_local_response_norm_is_pytorchs(size, alpha, beta):
    torch.manual_seed(0)
    x = 3 * torch.randn(2, 7, 4, 5)
    expected = torch.nn.LocalResponseNorm(size, alpha, beta)(x)
    torch.testing.assert_close(LocalResponseNorm(size, alpha, beta)(x), expected)


def test_masks_go_behind_activation_pooling_and_normalisation():
    places = {
        name: mask_places(build(), [n for n, m in build().named_children() if hasattr(m, "weight")])
        for name, build in TORCH_NETWORKS.items()
    }
    assert places["lenet-5"] == {"conv1": "pool1", "conv2": "pool2", "fc1": "relu3", "fc2": "fc2"}
    assert places["convnet"] == {"conv1": "norm1", "conv2": "norm2", "conv3": "pool3", "fc1": "fc1"}
    assert places["lenet-300-100"] == {"fc1": "relu1", "fc2": "relu2", "fc3": "fc3"}
    assert places["nin"]["cccp2"] == "pool1" and places["nin"]["conv2"] == "conv2_relu"


def test_shares_are_whole_nodes():
    model = TORCH_NETWORKS["convnet"]()
    assert shares(model, {"conv1": 0.28, "conv3": 0.49}) == {"conv1": 9 / 32, "conv3": 31 / 64}
