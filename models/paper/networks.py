"""The paper's networks for training in PyTorch: the layers of the ONNX ones in `models`, so named."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class LocalResponseNorm(nn.Module):
    """``x / (1 + alpha / size · Σ x²)^beta`` over ``size`` neighbouring channels.

    What `torch.nn.LocalResponseNorm` computes, in a third of its time on a CPU.
    """

    def __init__(self, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]``, likewise out."""
        reach = self.size // 2
        padded = nn.functional.pad(x.square(), (0, 0, 0, 0, reach, self.size - 1 - reach))
        channels = x.shape[1]
        total = padded[:, :channels]
        for offset in range(1, self.size):
            total = total + padded[:, offset : offset + channels]
        return x * torch.exp(-self.beta * torch.log1p(self.alpha / self.size * total))


def _max_pool(kernel: int, stride: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel, stride, ceil_mode=True)


def _average_pool(kernel: int, stride: int) -> nn.AvgPool2d:
    return nn.AvgPool2d(kernel, stride, ceil_mode=True, count_include_pad=False)


class _Sequential(nn.Sequential):
    """Named layers one after another."""

    def __init__(self, layers: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        for name, layer in layers:
            self.add_module(name, layer)


def lenet_300_100() -> nn.Sequential:
    """See `models.lenet.lenet_300_100`."""
    return _Sequential(
        [
            ("flatten", nn.Flatten()),
            ("fc1", nn.Linear(784, 300)),
            ("relu1", nn.ReLU()),
            ("fc2", nn.Linear(300, 100)),
            ("relu2", nn.ReLU()),
            ("fc3", nn.Linear(100, 10)),
        ]
    )


def lenet_5() -> nn.Sequential:
    """See `models.lenet.lenet_5`."""
    return _Sequential(
        [
            ("conv1", nn.Conv2d(1, 20, 5)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(20, 50, 5)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(2)),
            ("flatten", nn.Flatten()),
            ("fc1", nn.Linear(800, 500)),
            ("relu3", nn.ReLU()),
            ("fc2", nn.Linear(500, 10)),
        ]
    )


def convnet() -> nn.Sequential:
    """See `models.convnet.convnet`."""
    return _Sequential(
        [
            ("conv1", nn.Conv2d(3, 32, 5, padding=2)),
            ("pool1", _max_pool(3, 2)),
            ("relu1", nn.ReLU()),
            ("norm1", LocalResponseNorm(3, 5e-5, 0.75)),
            ("conv2", nn.Conv2d(32, 32, 5, padding=2)),
            ("relu2", nn.ReLU()),
            ("pool2", _average_pool(3, 2)),
            ("norm2", LocalResponseNorm(3, 5e-5, 0.75)),
            ("conv3", nn.Conv2d(32, 64, 5, padding=2)),
            ("relu3", nn.ReLU()),
            ("pool3", _average_pool(3, 2)),
            ("flatten", nn.Flatten()),
            ("fc1", nn.Linear(1024, 10)),
        ]
    )


def nin() -> nn.Sequential:
    """See `models.nin.nin`.

    Nine layers deep without normalisation, it learns nothing from PyTorch's own first weights: they are those
    of He et al. (ICCV 2015). Its last layer ends in a ReLU too: it starts where none of the classes is dead.
    """

    def conv(name: str, channels: int, out: int, kernel: int) -> list[tuple[str, nn.Module]]:
        layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return [(name, layer), (f"{name}_relu", nn.ReLU())]

    network = _Sequential(
        [
            *conv("conv1", 3, 192, 5),
            *conv("cccp1", 192, 160, 1),
            *conv("cccp2", 160, 96, 1),
            ("pool1", _max_pool(3, 2)),
            *conv("conv2", 96, 192, 5),
            *conv("cccp3", 192, 192, 1),
            *conv("cccp4", 192, 192, 1),
            ("pool2", _average_pool(3, 2)),
            *conv("conv3", 192, 192, 3),
            *conv("cccp5", 192, 192, 1),
            *conv("cccp6", 192, 10, 1),
            ("pool3", nn.AvgPool2d(8, 1)),
            ("flatten", nn.Flatten()),
        ]
    )
    last = network.get_submodule("cccp6")
    with torch.no_grad():
        last.get_parameter("weight").mul_(0.3)
        last.get_parameter("bias").fill_(1.0)
    return network


#: By name in `models.NETWORKS`. AlexNet is not trained here: it has no data.
TORCH_NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "lenet-300-100": lenet_300_100,
    "lenet-5": lenet_5,
    "convnet": convnet,
    "nin": nin,
}
