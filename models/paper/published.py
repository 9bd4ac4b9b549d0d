"""What the paper (Yu et al., ISCA 2017) reports for Scalpel: speed-ups, sizes, nodes removed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """The paper's figures for a network on a platform.

    Attributes:
        size: in percent of the original, Scalpel.
        speed_up: over the dense network, Scalpel.
        traditional_size: in percent; None where no figure is at hand.
        traditional: speed-up of traditional pruning.
        optimized: of optimized pruning.
    """

    size: float
    speed_up: float
    traditional_size: float | None = None
    traditional: float | None = None
    optimized: float | None = None


#: By target and network: Cortex-M4, Core i7-6700, GTX Titan X.
FIGURES: dict[tuple[str, str], Published] = {
    ("mcu", "lenet-300-100"): Published(6.93, 9.17),
    ("mcu", "lenet-5"): Published(6.72, 3.51),
    ("mcu", "convnet"): Published(40.95, 1.38),
    ("cpu", "lenet-300-100"): Published(7.08, 6.86, 9.3, 3.78, 3.78),
    ("cpu", "lenet-5"): Published(5.20, 4.15, 7.2, 1.54, 1.97),
    ("cpu", "convnet"): Published(44.28, 1.58, 48, 0.79, 0.95),
    ("cpu", "nin"): Published(81.16, 1.22, 119, 0.37, 1.00),
    ("cpu", "alexnet"): Published(13.06, 2.20, 22, 0.80, 0.98),
    ("gpu", "lenet-300-100"): Published(66.83, 1.08),
    ("gpu", "lenet-5"): Published(11.67, 1.59),
    ("gpu", "convnet"): Published(45.40, 1.14),
    ("gpu", "nin"): Published(81.16, 1.17),
    ("gpu", "alexnet"): Published(76.52, 1.35),
}

#: Percent of the nodes of each layer that node pruning removes.
NODES_REMOVED: dict[str, dict[str, float]] = {
    "lenet-300-100": {"fc1": 31, "fc2": 32},
    "lenet-5": {"conv1": 50, "conv2": 68, "fc1": 65},
    "convnet": {"conv1": 28, "conv2": 25, "conv3": 49},
    "nin": {
        "conv1": 28, "cccp1": 20, "cccp2": 5, "conv2": 2, "cccp3": 14, "cccp4": 8, "conv3": 22, "cccp5": 48,
    },
    "alexnet": {"conv1": 3, "conv2": 20, "conv3": 24, "conv4": 18, "conv5": 0, "fc6": 17, "fc7": 23},
}  # fmt: skip

#: Percent of wrong answers of the dense networks on MNIST (the LeNets), CIFAR-10 and ImageNet (top 5).
DENSE_ERROR = {"lenet-300-100": 1.50, "lenet-5": 0.68, "convnet": 18.14, "nin": 10.43, "alexnet": 19.73}
#: Geometric means of Scalpel's speed-ups.
MEAN_SPEED_UP = {"mcu": 3.54, "cpu": 2.61, "gpu": 1.25}
