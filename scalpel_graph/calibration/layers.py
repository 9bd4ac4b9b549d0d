"""The layers that a machine is measured on.

They cover what networks are made of: few and many channels, small and large pictures, kernels of several
sizes, strides, matrices that fit each cache and some that fit none. The picture sizes are those of networks,
since what is left over at the ends of vectors and tiles depends on them; the numbers of channels mostly are
not, so that real layers are not among them.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scalpel_graph.cost import LayerWork
from scalpel_graph.group_csr import Array, GroupShape


@dataclass(frozen=True)
class LayerShape:
    """A layer without its weights.

    Attributes:
        work: for the cost model.
        attributes: of the sparse operator (`scalpel_graph.ops`), ``weight_shape`` among them.
        x_shape: of its input.
    """

    work: LayerWork
    attributes: dict[str, Any] = field(hash=False)
    x_shape: tuple[int, ...]

    def weights(self, rng: np.random.Generator, group_shape: GroupShape, density: float) -> Array:
        """``[M, K]`` float32 or int8 with about this share of its groups not zero, in random places; at least
        one."""
        M, K = self.work.M, self.work.K
        r, c = group_shape
        kept = rng.random((-(-M // r), -(-K // c))) < density
        kept[0, 0] = True
        mask = np.repeat(np.repeat(kept, r, axis=0), c, axis=1)[:M, :K]
        if self.work.quantized:
            return mask.astype(np.int8)
        # Of one size: products neither overflow nor become subnormal, which is slow.
        return np.where(mask, np.float32(0.01), np.float32(0))

    def of_integers(self) -> "LayerShape":
        """The same layer of 8-bit integers."""
        return replace(self, work=replace(self.work, quantized=True, value_bytes=1))


def conv(
    channels: int,
    outputs: int,
    kernel: int,
    size: int,
    *,
    stride: int = 1,
    group: int = 1,
    padding: int | None = None,
    spatial: int = 2,
) -> LayerShape:
    """A Conv of one picture.

    Args:
        channels: of the input.
        outputs: channels of the output.
        kernel, size, stride: along each axis.
        group: groups.
        padding: on every side; None: as keeps the size at a stride of 1.
        spatial: number of axes.
    """
    padding = kernel // 2 if padding is None else padding
    out = (size + 2 * padding - kernel) // stride + 1
    work = LayerWork(
        "Conv",
        outputs,
        channels // group * kernel**spatial,
        out**spatial,
        group=group,
        kernel=(kernel,) * spatial,
        strides=(stride,) * spatial,
        dilations=(1,) * spatial,
        pads=(padding,) * (2 * spatial),
        in_size=(size,) * spatial,
        out_size=(out,) * spatial,
    )
    attributes = {
        "weight_shape": [outputs, channels // group, *work.kernel],
        "strides": list(work.strides),
        "pads": list(work.pads),
        "dilations": list(work.dilations),
        "group": group,
    }
    return LayerShape(work, attributes, (1, channels, *work.in_size))


def gemm(inputs: int, outputs: int, rows: int = 1) -> LayerShape:
    """A Gemm of so many rows of X."""
    return LayerShape(
        LayerWork("Gemm", outputs, inputs, rows), {"weight_shape": [outputs, inputs]}, (rows, inputs)
    )


#: Layers that are measured dense and sparse.
LAYERS: tuple[LayerShape, ...] = (
    *(
        conv(*shape)
        for shape in (
            (16, 96, 1, 80), (24, 72, 1, 56), (32, 32, 1, 112), (48, 96, 1, 40), (64, 192, 1, 28),
            (96, 160, 1, 28), (96, 384, 1, 14), (112, 672, 1, 14), (128, 160, 1, 56), (128, 384, 1, 17),
            (160, 96, 1, 28), (320, 320, 1, 14), (320, 1280, 1, 7), (384, 96, 1, 14), (640, 192, 1, 14),
            (640, 320, 1, 7), (768, 768, 1, 7), (1024, 512, 1, 3), (1280, 320, 1, 7), (1536, 384, 1, 4),
            (16, 32, 3, 64), (32, 32, 3, 56), (32, 48, 5, 27), (48, 48, 3, 40), (64, 96, 5, 28),
            (96, 96, 3, 28), (128, 64, 3, 32), (160, 160, 3, 14), (160, 192, 3, 9), (192, 192, 3, 20),
            (256, 384, 3, 17), (320, 320, 3, 7), (384, 256, 3, 13), (640, 384, 3, 7), (768, 256, 3, 5),
            (32, 32, 7, 24), (48, 320, 1, 1), (480, 24, 1, 1), (640, 160, 1, 1), (32, 48, 1, 7),
            (128, 96, 1, 8), (160, 160, 1, 9), (16, 24, 3, 8), (8, 20, 5, 14), (256, 512, 3, 15),
            (48, 48, 3, 128), (320, 160, 1, 56), (3, 32, 3, 64), (72, 32, 1, 56), (192, 96, 1, 56),
            (160, 32, 3, 28), (96, 24, 3, 56), (96, 48, 3, 112), (160, 64, 3, 128), (48, 16, 1, 28),
        )
    ),
    *(
        conv(*shape, stride=2)
        for shape in (
            (3, 24, 3, 224), (3, 16, 3, 192), (3, 48, 7, 160), (32, 64, 3, 112),
            (96, 192, 3, 28), (192, 384, 3, 14),
        )
    ),
    *(
        conv(*shape, stride=2, padding=0)
        for shape in ((96, 160, 1, 56), (320, 640, 1, 14), (320, 768, 1, 28))
    ),
    *(conv(*shape) for shape in ((50, 58, 1, 28), (90, 150, 1, 14), (30, 30, 1, 56), (50, 50, 3, 14))),
    *(
        conv(*shape, group=group)
        for *shape, group in (
            (128, 128, 3, 14, 4), (96, 96, 3, 28, 2), (210, 60, 1, 14, 3), (120, 90, 1, 28, 3),
        )
    ),
    *(conv(*shape, spatial=1) for shape in ((64, 128, 5, 200), (256, 256, 3, 100), (384, 192, 1, 64))),
    *(
        gemm(*shape)
        for shape in (
            (120, 84), (400, 120), (700, 400), (256, 256), (512, 128), (640, 640), (512, 2500),
            (1280, 320), (1024, 1024), (3000, 1000), (1536, 3072), (2500, 2500), (4096, 2048),
            (6000, 4096),
        )
    ),
    *(gemm(640, 640, rows) for rows in (2, 4, 8, 16, 32, 50, 100, 200)),
    *(gemm(1536, 1536, rows) for rows in (4, 16, 64, 128)),
    *(gemm(256, 256, rows) for rows in (8, 32, 128)),
    *(gemm(1280, 320, rows) for rows in (2, 16, 100)),
    *(gemm(512, 2048, rows) for rows in (2, 8, 64, 196)),
    *(gemm(1000, 1000, rows) for rows in (3, 6)),
    *(gemm(256, 256, rows) for rows in (2, 5)),
)  # fmt: skip

#: Depthwise layers, which have no zeros to leave out.
DEPTHWISE_LAYERS: tuple[LayerShape, ...] = tuple(
    conv(channels, channels, kernel, size, stride=stride, group=channels)
    for channels, kernel, size, stride in (
        (24, 3, 112, 1), (48, 3, 112, 2), (32, 3, 56, 1), (160, 3, 56, 1), (96, 3, 56, 2), (320, 3, 28, 1),
        (192, 3, 28, 2), (64, 3, 20, 1), (384, 3, 14, 1), (640, 3, 14, 2), (960, 3, 7, 1), (48, 3, 80, 1),
        (72, 5, 56, 2), (120, 5, 28, 1), (240, 5, 28, 2), (480, 5, 14, 1), (672, 5, 14, 2), (672, 5, 7, 1),
        (30, 3, 56, 1), (90, 3, 14, 1), (150, 5, 14, 2),
    )
)  # fmt: skip

#: Shares of groups that are stored.
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0)
