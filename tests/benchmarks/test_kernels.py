import json

import numpy as np
import pytest

from benchmarks import kernels
from benchmarks.layer_timers import medians, random_input
from benchmarks.layers import LAYERS, layer_name
from scalpel_graph import _kernels
from scalpel_graph.calibration.layers import conv, gemm

SMALL = (conv(16, 8, 3, 6), gemm(32, 24), gemm(16, 8, 40))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(kernels, "LAYERS", SMALL)
    if "scalar" in _kernels.isas()[-1:]:
        monkeypatch.setattr(kernels, "_peak", lambda *_: 1.0)


OPTIONS = ["--rounds", "1", "--seconds", "1e-5", "--density", "0.5"]


def test_every_layer_is_timed_with_every_instruction_set_and_group_shape(small, tmp_path, capsys):
    path = tmp_path / "kernels.json"
    isas = [f"--isa={isa}" for isa in _kernels.isas()]
    assert kernels.main([*OPTIONS, *isas, "--group-shape", "4x1", "--json", str(path)]) == 0
    layers = json.loads(path.read_text())["layers"]
    assert [layer["layer"] for layer in layers] == ["conv 3×3 16→8 6²", "gemm 24×32 N=1", "gemm 8×16 N=40"]
    for layer in layers:
        assert [shape["isa"] for shape in layer["group_shapes"]] == _kernels.isas()
        assert all(shape["gflops_on_nonzeros"] > 0 for shape in layer["group_shapes"])
    assert "geometric mean" in capsys.readouterr().out


def test_markdown(small, capsys):
    assert kernels.main([*OPTIONS, "--group-shape", "1x8", "--layers", "N=1", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"| layer | dense µs | {_kernels.chosen_isa()} 1×8 |"
    assert lines[2].startswith("| gemm 24×32 N=1 | ") and "GB/s · " in lines[2]


def test_unknown_layer(capsys):
    assert kernels.main(["--layers", "lstm"]) == 2
    assert "no layer has this in its name" in capsys.readouterr().err


def test_inputs_are_aligned_as_in_onnx_runtime():
    rng = np.random.default_rng(0)
    for layer in SMALL:
        X = random_input(layer, rng)
        assert X.ctypes.data % 64 == 0 and X.shape == layer.x_shape and X.dtype == np.float32


def test_medians_are_of_all_rounds():
    values = iter([[1.0, 9.0], [5.0], [2.0], [7.0]])
    assert medians([lambda _: next(values), lambda _: next(values)], 2, 0.1) == [2.0, 6.0]


def test_layers_have_different_names():
    names = [layer_name(layer) for layer in LAYERS]
    assert len(set(names)) == len(names)
    assert layer_name(conv(6, 4, 3, 9, stride=2, group=2)) == "conv 3×3/2 6→4 g=2 9²"
    assert layer_name(conv(6, 4, 3, 9, spatial=1)) == "conv 3 6→4 9"
