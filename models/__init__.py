"""Networks to optimize: the Scalpel paper's five and modern ones, with seeded weights.

`NETWORKS` holds them by name; ``python -m models`` writes them to files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx

from models.alexnet import alexnet, alexnet_fc
from models.bert import bert
from models.convnet import convnet
from models.densenet import densenet121
from models.inverted_residual import efficientnet_b0, mobilenet_v2, mobilenet_v3
from models.lenet import lenet_5, lenet_300_100
from models.mlp import mlp
from models.mobilenet import mobilenet_v1
from models.nin import nin
from models.resnet import resnet50
from models.shufflenet import shufflenet_v1, shufflenet_v2
from models.tagger import lstm_tagger
from models.unet import unet
from models.vit import vit
from models.yolo import yolo


@dataclass(frozen=True)
class Network:
    """A network and how it is usually pruned.

    Attributes:
        summary: one line for people.
        build: ``build(seed=0, opset=17)`` gives the model.
        input_shape: shape of its one input, with a batch of 1.
        pruned_layers: patterns of the names of the layers that pruning is for.
        vocabulary: the input is int64 below this number; None where it is float32.
    """

    summary: str
    build: Callable[..., onnx.ModelProto]
    input_shape: tuple[int, ...]
    pruned_layers: tuple[str, ...]
    vocabulary: int | None = None

    def sample_input(self, batch: int = 1, seed: int = 0) -> npt.NDArray[np.float32] | npt.NDArray[np.int64]:
        """Random input ``[batch, ...]``: standard normal, or token numbers."""
        rng = np.random.default_rng(seed)
        shape = (batch, *self.input_shape[1:])
        if self.vocabulary is not None:
            return rng.integers(self.vocabulary, size=shape, dtype=np.int64)
        return rng.standard_normal(shape, dtype=np.float32)


NETWORKS: dict[str, Network] = {
    "lenet-300-100": Network("fully connected digits", lenet_300_100, (1, 1, 28, 28), ("fc*",)),
    "lenet-5": Network("convolutional digits", lenet_5, (1, 1, 28, 28), ("conv2", "fc*")),
    "convnet": Network("Caffe's cifar10-full", convnet, (1, 3, 32, 32), ("conv2", "conv3", "fc1")),
    "nin": Network("Network in Network, CIFAR-10", nin, (1, 3, 32, 32), ("conv[23]", "cccp*")),
    "alexnet": Network("AlexNet, ImageNet", alexnet, (1, 3, 227, 227), ("fc*",)),
    "alexnet-fc": Network("AlexNet's fully connected layers", alexnet_fc, (1, 9216), ("fc*",)),
    "resnet-50": Network("ResNet-50 v1.5, ImageNet", resnet50, (1, 3, 224, 224), ("layer*",)),
    "mobilenet-v1": Network("MobileNetV1, ImageNet", mobilenet_v1, (1, 3, 224, 224), ("*.pointwise",)),
    "mobilenet-v2": Network(
        "MobileNetV2, ImageNet", mobilenet_v2, (1, 3, 224, 224), ("*.expand", "*.project", "conv2")
    ),
    "mobilenet-v3": Network(
        "MobileNetV3 (large), ImageNet",
        mobilenet_v3,
        (1, 3, 224, 224),
        ("*.expand", "*.project", "conv2", "fc1"),
    ),
    "efficientnet-b0": Network(
        "EfficientNet-B0, ImageNet", efficientnet_b0, (1, 3, 224, 224), ("*.expand", "*.project", "conv2")
    ),
    "shufflenet-v1": Network(
        "ShuffleNet with 3 groups, ImageNet", shufflenet_v1, (1, 3, 224, 224), ("*.conv1", "*.conv2")
    ),
    "shufflenet-v2": Network(
        "ShuffleNetV2, ImageNet", shufflenet_v2, (1, 3, 224, 224), ("*.conv1", "*.conv2", "*.conv", "conv5")
    ),
    "densenet-121": Network(
        "DenseNet-121, ImageNet", densenet121, (1, 3, 224, 224), ("block*", "transition*")
    ),
    "unet": Network("U-Net, 128×128 pictures", unet, (1, 3, 128, 128), ("down[1-9]*", "up*")),
    "yolo": Network("a detector like YOLOv8", yolo, (1, 3, 256, 256), ("stage*", "neck*", "deep*")),
    "vit-tiny": Network("ViT-Ti/16, ImageNet", vit, (1, 3, 224, 224), ("encoder.*",)),
    "lstm-tagger": Network("bidirectional LSTM tagger", lstm_tagger, (1, 32), ("hidden",), vocabulary=1000),
    "bert-base": Network("BERT-base encoder, 128 tokens", bert, (1, 128), ("encoder.*",), vocabulary=1000),
    "minilm": Network(
        "MiniLM-size encoder, 128 tokens",
        partial(bert, layers=6, hidden=384, intermediate=1536),
        (1, 128),
        ("encoder.*",),
        vocabulary=1000,
    ),
    "mlp": Network("six fully connected layers of 2048", mlp, (1, 2048), ("fc*",)),
}
