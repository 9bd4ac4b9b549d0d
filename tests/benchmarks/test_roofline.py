"""What the benchmark computes from times and rates, which are mostly made up here."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import roofline, roofline_plot
from benchmarks.roofline_model import MULTIPLY_ADDS, Level, Machine, bound, used_inputs
from scalpel_graph import _kernels
from scalpel_graph.caches import Cache
from scalpel_graph.calibration.layers import conv, gemm

MACHINE = Machine(
    "avx2",
    1,
    100e9,
    (Level("L1", 1000, 200e9, 250e9), Level("L2", 9000, 50e9, 40e9), Level("memory", None, 10e9, 10e9)),
)
FACTS = {"layer": "gemm", "group_shape": (4, 1), "density": 0.1, "us": 1.0}
VECTORS = any(isa != "scalar" for isa in _kernels.isas())

# Not what SCALPEL_ISA asks for, which may have no roofline.
BEST = f"--isa={_kernels.isas()[-1]}"


def test_the_nearest_level_that_holds_everything_counts():
    assert [MACHINE.home(size).name for size in (1, 1000, 1001, 9000, 9001)] == [
        "L1",
        "L1",
        "L2",
        "L2",
        "memory",
    ]


def test_a_copy_takes_what_it_was_measured_to_take_and_a_write_never_less_than_nothing():
    level = MACHINE.levels[1]
    assert level.seconds(500, 0) == pytest.approx(500 / 50e9)
    assert level.seconds(500, 500) == pytest.approx(1000 / 40e9)
    assert replace(level, copy=200e9).seconds(500, 500) == pytest.approx(500 / 50e9)


def test_the_bound_is_the_longer_of_computing_and_moving():
    few = bound(MACHINE, flops=1000, read_bytes=1000, written_bytes=1000, **FACTS)
    assert (few.level, few.bound_by) == ("L2", "L2")
    assert few.bound_us == pytest.approx(1e6 * 2000 / 40e9)
    many = bound(MACHINE, flops=50_000, read_bytes=1000, written_bytes=1000, **FACTS)
    assert many.bound_by == MULTIPLY_ADDS
    assert many.bound_us == pytest.approx(0.5)
    assert (many.gflops, many.intensity, many.share) == pytest.approx((50.0, 25.0, 0.5))


def test_inputs_that_no_weight_is_for_are_not_counted():
    layer = conv(4, 3, 3, 10, padding=1)
    W = np.zeros((3, 36), np.float32)
    W[0, 9] = W[2, 17] = W[1, 30] = 1  # channels 1, 1 and 3
    assert used_inputs(W, layer.work) == 2 * 100
    grouped = conv(4, 6, 1, 5, group=2)
    W = np.zeros((6, 2), np.float32)
    W[0, 0] = W[3, 1] = 1  # channel 0 of the first group, 1 of the second
    assert used_inputs(W, grouped.work) == 2 * 25
    W = np.eye(3, 8, dtype=np.float32)
    assert used_inputs(W, gemm(8, 3, 5).work) == 3 * 5


def test_levels_are_those_of_the_machine(monkeypatch):
    asked = []

    def bandwidth(isa, nbytes, *, copy, threads, seconds):
        asked.append((nbytes, copy, threads))
        return nbytes + copy

    monkeypatch.setattr(roofline._kernels, "bandwidth", bandwidth)
    monkeypatch.setattr(roofline._kernels, "peak_flops", lambda *_, **__: 1e9)
    caches = [Cache(1, 1000, 1), Cache(2, 40_000, 2)]
    monkeypatch.setattr(roofline, "data_caches", lambda: caches)
    monkeypatch.setattr(roofline, "last_cache_bytes", lambda: 40_000)
    monkeypatch.setattr(roofline.os, "cpu_count", lambda: 2)
    machine = roofline.measure_machine("avx2", 2)
    assert [(level.name, level.size) for level in machine.levels] == [
        ("L1", 2000),
        ("L2", 40_000),
        ("memory", None),
    ]
    each_copied_too = [(size, copy, 2) for size in (500, 10_000, 80_000) for copy in (False, True)]
    assert list(dict.fromkeys(asked)) == each_copied_too
    assert (machine.levels[1].read, machine.levels[1].copy) == (10_000, 10_001)


def test_lines_end_at_the_peak_and_close_ones_share_a_label():
    close = replace(MACHINE, levels=(replace(MACHINE.levels[0], read=60e9), *MACHINE.levels[1:]))
    assert roofline_plot._roofs(close, 0.1, 20.0) == [
        ("memory 10 GB/s", [0.1, 10.0], [1.0, 100.0]),
        ("", [0.1, 2.0], [5.0, 100.0]),
        ("L1, L2 60 GB/s", [0.1, pytest.approx(5 / 3)], [6.0, pytest.approx(100.0)]),
        ("peak 100 GFLOP/s", [pytest.approx(5 / 3), 20.0], [100.0, 100.0]),
    ]
    assert [name for name, *_ in roofline_plot._roofs(MACHINE, 3.0, 20.0)] == [
        "memory 10 GB/s",
        "peak 100 GFLOP/s",
    ]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(roofline, "LAYERS", (conv(16, 8, 3, 6), gemm(32, 24)))
    monkeypatch.setattr(
        roofline, "measure_machine", lambda isa, threads: replace(MACHINE, isa=isa, threads=threads)
    )


OPTIONS = [
    "--density",
    "0.5",
    "--group-shape",
    "4x1",
    "--group-shape",
    "1x1",
    "--rounds",
    "1",
    "--seconds",
    "1e-5",
]


@pytest.mark.skipif(not VECTORS, reason="the scalar reference has no roofline")
def test_file_table_and_page(small, tmp_path, capsys):
    path, plot = tmp_path / "out" / "roofline.json", tmp_path / "roofline.html"
    assert roofline.main([*OPTIONS, BEST, "--json", str(path), "--plot", str(plot)]) == 0
    data = json.loads(path.read_text())
    assert [machine["threads"] for machine in data["machines"]] == [1, 2]
    assert len(data["cases"]) == 2 * 2 * 2
    assert all(case["us"] > 0 and case["flops"] > 0 for case in data["cases"])
    printed = capsys.readouterr().out
    assert "conv 3×3 16→8 6²" in printed and "bound by" in printed
    page = re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), plot.read_text())
    assert "<title>Sparse layers on the roofline of" in page
    assert not re.findall(r"<(?:script|link)[^>]* (?:src|href)=", page)  # nothing to fetch
    for text in ("conv 3×3 16→8 6²", "gemm 24×32 N=1", "2 threads", "memory 10 GB/s", "peak 100 GFLOP/s"):
        assert text in page


@pytest.mark.skipif(not VECTORS, reason="the scalar reference has no roofline")
def test_markdown(small, tmp_path, capsys):
    json_option = ["--json", str(tmp_path / "roofline.json")]
    assert roofline.main([*OPTIONS, BEST, "--threads", "1", "--markdown", *json_option]) == 0
    printed = capsys.readouterr().out
    assert "| 1 | 100 | L2 | 8 KiB | 50 | 40 |\n" in printed
    assert f"| {_kernels.isas()[-1]} | 1 | 0.5 | " in printed
    assert "gemm" not in printed  # single layers are not for the documentation


def test_without_plotly_it_says_so_at_once(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(roofline_plot, "find_spec", lambda name: None)
    options = ["--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.html")]
    assert roofline.main(options) == 2
    assert "pip install 'scalpel-graph[bench]'" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--density", "0"], "a density of 0"),
        (["--density", "2"], "not a fraction"),
        (["--isa", "scalar"], "'scalar'"),
    ],
)
def test_bad_command_line_gets_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        roofline.main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_unknown_layer(capsys):
    assert roofline.main(["--layers", "lstm"]) == 2
    assert "no layer has this in its name" in capsys.readouterr().err


def test_the_scalar_reference_has_no_roofline(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(roofline._kernels, "chosen_isa", lambda: "scalar")
    assert roofline.main(["--json", str(tmp_path / "x.json")]) == 2
    assert "no roofline" in capsys.readouterr().err
