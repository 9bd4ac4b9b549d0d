"""The command around a calibration; what it measures is made up, since tests time nothing."""

import pytest

from scalpel_graph.calibration import measure
from scalpel_graph.cli import calibrate
from scalpel_graph.target import load_target
from tests.scalpel_graph.calibration.machine import PROFILE, Machine


@pytest.fixture
def machine(monkeypatch):
    machine = Machine(PROFILE)
    monkeypatch.setattr(measure, "HostMeasure", lambda: machine)
    monkeypatch.setattr(calibrate, "group_shapes", lambda: [(1, 1), (8, 1)])
    monkeypatch.setattr(calibrate, "quantized_group_shapes", lambda: [(8, 1), (4, 1)])
    return machine


def test_it_writes_a_profile_that_loads(machine, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    assert calibrate.main([str(path), "--threads", "2", "--threads", "1"]) == 0
    target = load_target(str(path))
    assert [kernel.group_shape for kernel in target.kernels] == [(8, 1), (1, 1)]
    assert sorted(target.dense["conv"]) == [1, 2]
    assert target.quantized is not None
    assert [kernel.group_shape for kernel in target.quantized.kernels] == [(8, 1), (4, 1)]
    assert {"onnxruntime", "date", "typical_error"} <= target.host.keys()
    out = capsys.readouterr().out
    assert f"scalpel-opt --target {path}" in out.replace("\n", "") and "typically" in out
    assert [p.name for p in tmp_path.iterdir()] == ["mine.toml"]


def test_quiet_prints_nothing(machine, tmp_path, capsys):
    assert calibrate.main([str(tmp_path / "mine.toml"), "-q", "--threads", "1"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "OUT.toml"),
        (["{}/profile.json"], "must end in .toml"),
        (["{}/missing/profile.toml"], "does not exist"),
        (["{}/folder.toml"], "is a folder"),
        (["{}/profile.toml", "--threads", "0"], "not a positive whole number"),
    ],
)
def test_unusable_options_are_one_line(machine, tmp_path, capsys, arguments, message):
    (tmp_path / "folder.toml").mkdir()
    try:
        code = calibrate.main([argument.format(tmp_path) for argument in arguments])
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and message in err and not machine.jobs


def test_an_unknown_instruction_set_is_one_line(machine, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SCALPEL_ISA", "abacus")
    assert calibrate.main([str(tmp_path / "p.toml")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "SCALPEL_ISA=abacus cannot run here" in err


def test_an_interrupted_calibration_leaves_nothing(machine, tmp_path, monkeypatch):
    def interrupted(job, weights):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "run", lambda jobs, _: (interrupted(job, None) for job in jobs))
    assert calibrate.main([str(tmp_path / "p.toml")]) == 130
    assert not list(tmp_path.iterdir())
