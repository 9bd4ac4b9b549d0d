"""When a measurement ends, what is kept, and that networks go all the way through."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import cycle

import onnx
import pytest

from benchmarks import never_slower
from benchmarks.never_slower import DOUBT, OK, OVER, UNCHANGED, Job, Row, all_jobs, main, prepare, settle
from benchmarks.never_slower import read_rows as read

ROW = Row("lenet-5", 0.9, (4, 1), 1, OK, 0.5, 0.4, 0.6, 6)


@pytest.fixture
def in_threads(monkeypatch):
    monkeypatch.setattr(
        never_slower, "ProcessPoolExecutor", lambda jobs, context, initializer: ThreadPoolExecutor(jobs)
    )


def rounds_of(*slowdowns):
    """A function that gives rounds with these slow-downs in turn."""
    values = cycle(slowdowns)

    def one_round():
        slowdown = next(values)
        return [[1.0, slowdown], [1.0, slowdown]]

    return one_round


@pytest.mark.parametrize(
    ("slowdowns", "verdict", "rounds"),
    [
        ([0.5], OK, 2),
        ([0.99], OK, 6),
        ([1.02], OK, 6),
        ([1.04], OVER, 24),
        ([1.0, 1.1], DOUBT, 24),
    ],
)
def test_verdict_and_rounds_it_takes(slowdowns, verdict, rounds):
    found, times = settle(rounds_of(*slowdowns), 0.0)
    assert (found, times.rounds) == (verdict, rounds)


def test_what_is_not_clear_is_measured_on():
    # Of seven rounds and more, the interval leaves out the one that is off.
    found, times = settle(rounds_of(1.2, *[1.0] * 30), 0.0)
    assert found == OK and times.rounds > 6


def test_without_zeros_group_shapes_are_all_one():
    jobs = all_jobs(["mlp", "nin"], [0.0, 0.5], [(1, 1), (4, 1)])
    assert jobs == [
        Job(network, sparsity, shape)
        for network in ("mlp", "nin")
        for sparsity, shape in ((0.0, (1, 1)), (0.5, (1, 1)), (0.5, (4, 1)))
    ]


def test_prepared_networks_are_files_or_nothing(tmp_path):
    (path,) = prepare(Job("lenet-300-100", 0.9, (8, 1)), [1], str(tmp_path))
    assert any(node.domain == "ai.scalpel" for node in onnx.load(path).graph.node)
    assert prepare(Job("lenet-300-100", 0.0, (1, 1)), [1], str(tmp_path)) == [None]


def test_quantized_networks_are_quantized_before_they_are_optimized(in_threads, tmp_path, monkeypatch):
    (path,) = prepare(Job("lenet-300-100", 0.9, (8, 1)), [1], str(tmp_path), quantized=True)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "QLinearGroupCsrGemm" in kinds and "GroupCsrGemm" not in kinds
    compared = []

    def measure(job, threads, dense, path, seconds):
        compared.append(dense.func.__self__)
        return replace(ROW, **asdict(job), threads=threads)

    monkeypatch.setattr(never_slower, "_measure", measure)
    monkeypatch.chdir(tmp_path)
    options = ["--network", "lenet-300-100", "--sparsity", "0.9", "--group-shape", "8x1", "--threads", "1"]
    assert main([*options, "--jobs", "1", "--quantized"]) == 0
    assert len(read(tmp_path / "build/benchmarks/never_slower-int8.jsonl")) == len(compared) == 1


def test_rows_as_they_come_and_tables(in_threads, tmp_path, capsys):
    path = tmp_path / "out" / "rows.jsonl"
    options = ["--network", "lenet-300-100", "--sparsity", "0", "--sparsity", "0.98", "--group-shape", "8x1"]
    options += ["--threads", "1", "--jobs", "1", "--seconds", "0.01", "--json", str(path)]
    assert main(options) == 0
    dense, sparse = read(path)
    assert (dense.verdict, dense.slowdown, dense.rounds) == (UNCHANGED, 1.0, 0)
    assert sparse.verdict in (OK, DOUBT, OVER)
    assert 0 < sparse.low <= sparse.slowdown <= sparse.high and sparse.rounds >= 2
    printed = capsys.readouterr().out
    assert "98 %" in printed and "1 unchanged" in printed


def test_resume_keeps_what_is_clear_or_not_asked_for(in_threads, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    other = replace(ROW, network="mlp")
    doubtful = replace(ROW, sparsity=0.8, verdict=DOUBT)
    path.write_text(
        "".join(json.dumps(asdict(row)) + "\n" for row in (ROW, other, doubtful)) + '{"network": "le'
    )
    measured = []

    def measure(job, threads, dense, path, seconds):
        measured.append((job, threads))
        return replace(ROW, **asdict(job), threads=threads)

    monkeypatch.setattr(never_slower, "_measure", measure)
    options = ["--network", "lenet-5", "--sparsity", "0.8", "--sparsity", "0.9", "--group-shape", "4x1"]
    assert main([*options, "--threads", "1", "--jobs", "1", "--resume", "--json", str(path)]) == 0
    assert measured == [(Job("lenet-5", 0.8, (4, 1)), 1)]
    assert read(path) == [ROW, other, replace(doubtful, verdict=OK)]


def test_the_worst_rows_come_first(tmp_path, capsys, monkeypatch):
    rows = [replace(ROW, slowdown=slowdown) for slowdown in (0.7, 1.05, 0.9)]
    monkeypatch.setattr(never_slower, "measure", lambda *_: iter(rows))
    assert main(["--markdown", "--json", str(tmp_path / "rows.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "| 90 % | 1.050 lenet-5 | 3 | 3 |" in printed
    assert printed.index("| 1.050 |") < printed.index("| 0.900 |") < printed.index("| 0.700 |")
