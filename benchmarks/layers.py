"""Layers of real networks, as the benchmarks of single layers run them."""

from scalpel_graph.calibration.layers import LayerShape, conv, gemm

LAYERS: tuple[LayerShape, ...] = (
    *(
        conv(*shape)
        for shape in (
            (64, 64, 1, 56), (64, 256, 1, 56), (256, 64, 1, 56), (64, 64, 3, 56), (128, 128, 3, 28),
            (128, 512, 1, 28),
        )
    ),
    conv(256, 256, 3, 28, stride=2),
    *(
        conv(*shape)
        for shape in (
            (512, 512, 1, 14), (256, 256, 3, 14), (256, 1024, 1, 14), (512, 512, 1, 7), (512, 512, 3, 7),
            (512, 2048, 1, 7), (64, 128, 1, 56), (256, 256, 1, 28), (1024, 1024, 1, 7),
        )
    ),
    *(
        gemm(*shape)
        for shape in (
            (2048, 2048, 64), (768, 768, 128), (768, 3072, 128), (3072, 768, 128), (2048, 2048, 8),
            (2048, 2048), (9216, 4096), (4096, 4096), (2048, 1000), (16, 16),
        )
    ),
)  # fmt: skip


def layer_name(layer: LayerShape) -> str:
    """For people: kernel, channels, input size; of a Gemm M, K and N."""
    work = layer.work
    if not work.is_conv:
        return f"gemm {work.M}×{work.K} N={work.N}"
    stride = f"/{work.strides[0]}" if work.strides[0] > 1 else ""
    group = f" g={work.group}" if work.group > 1 else ""
    square = len(work.in_size) == 2 and work.in_size[0] == work.in_size[1]
    size = f"{work.in_size[0]}²" if square else "×".join(map(str, work.in_size))
    return f"conv {'×'.join(map(str, work.kernel))}{stride} {work.channels}→{work.M}{group} {size}"
