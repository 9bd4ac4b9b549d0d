import json

import pytest

from benchmarks import quantized_kernels
from scalpel_graph import _kernels
from scalpel_graph.calibration.layers import conv, gemm

OPTIONS = ["--rounds", "1", "--seconds", "1e-5", "--density", "0.5"]
pytestmark = pytest.mark.skipif(
    not _kernels.quantized_kernels(), reason="this processor has none of the kernels of quantized layers"
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(quantized_kernels, "RESNET50", [(conv(16, 8, 1, 6), 2)])
    monkeypatch.setattr(quantized_kernels, "GEMMS", [gemm(32, 16)])


def test_every_layer_is_timed_with_every_group_shape(tmp_path, capsys):
    path = tmp_path / "kernels.json"
    shapes = ["--group-shape", "4x1", "--group-shape", "8x1"]
    assert quantized_kernels.main([*OPTIONS, *shapes, "--json", str(path)]) == 0
    layers = json.loads(path.read_text())["layers"]
    assert [layer["layer"] for layer in layers] == ["conv 1×1 16→8 6²", "gemm 16×32 N=1"]
    for layer in layers:
        assert [shape["group_shape"] for shape in layer["group_shapes"]] == [[4, 1], [8, 1]]
        assert all(shape["gops_on_nonzeros"] > 0 for shape in layer["group_shapes"])
    assert "gemm 16×32 N=1" in capsys.readouterr().out


def test_unknown_layer(capsys):
    assert quantized_kernels.main(["--layers", "lstm"]) == 2
    assert "no layer has this in its name" in capsys.readouterr().err
