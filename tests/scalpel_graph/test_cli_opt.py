import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
import scalpel_graph
from scalpel_graph import api
from scalpel_graph.cli import opt
from scalpel_graph.passes.base import Pass, PassResult
from scalpel_graph.passes.pipelines import pipeline_for
from scalpel_graph.target import load_target
from tests.pruned_networks import mlp, save
from tests.report_contract import CONTRACT, assert_follows


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    return save(mlp(sparsity=0.9), tmp_path / "in.onnx")


def run(*arguments: object) -> int:
    try:
        return opt.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def assert_refused(code: int, capfd, *words: str, expected: int = 2) -> None:
    """The command ended with ``expected``, one line on stderr that has ``words``, and nothing on stdout."""
    out, err = capfd.readouterr()
    assert code == expected, err
    assert out == ""
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert err.startswith("scalpel-opt: ")
    assert "Traceback" not in err
    for word in words:
        assert str(word) in err


# -- what works -------------------------------------------------------------------------------------------


def test_a_pruned_network_gets_smaller_and_answers_the_same(pruned, tmp_path, capfd):
    before = pruned.read_bytes()
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    assert run(pruned, out, "--target", "cpu", "--report", report) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert pruned.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "report.json"]
    assert out.stat().st_size < 0.3 * len(before)

    data = json.loads(report.read_text())
    assert_follows(data, CONTRACT)
    assert data["input"] == str(pruned)
    assert data["output"] == str(out)
    assert data["target"] == load_target("cpu").name and data["times"] == "predicted"
    assert data["size_bytes"] == {"before": len(before), "after": out.stat().st_size}
    assert data["macs"]["after"] < 0.2 * data["macs"]["before"]
    assert data["parameters"]["after"] < 0.2 * data["parameters"]["before"]
    verified = data["verified"]
    assert verified["ok"] and verified["custom_ops"] and verified["fallback"] and verified["runs"] > 0
    assert [layer["decision"] for layer in data["layers"]] == ["group_csr"] * 2
    assert any(run["modified"] for run in data["passes"])

    # The report's claims hold for the file, with our operators and without.
    x = np.random.default_rng(5).standard_normal((1, 512), dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(scalpel_graph.custom_op_library())
    expected = onnxruntime.InferenceSession(str(pruned)).run(None, {"x": x})[0]
    for session in (onnxruntime.InferenceSession(str(out), options), onnxruntime.InferenceSession(str(out))):
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)

    for words in ("fc1", "fc2", "before", "after", "Same answers", str(out), "register_custom_ops_library"):
        assert words in stdout


@pytest.mark.parametrize("weights", ["fp16", "bf16"])
def test_weights_of_16_bits_are_reported(weights, pruned, tmp_path, capfd):
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    assert run(pruned, out, "--weights", weights, "--report", report) == 0
    data = json.loads(report.read_text())
    assert_follows(data, CONTRACT)
    assert data["weights"] == weights
    assert [layer["values"] for layer in data["layers"]] == [weights] * 2
    assert all(0 < layer["rounding_error"] < 2**-8 for layer in data["layers"])
    stdout, _ = capfd.readouterr()
    stdout = " ".join(stdout.split())
    assert f"Weights as {weights} in 2 of 2 sparse layers: those of an output are off by at most" in stdout
    assert f"Answers as {weights} weights explain them" in stdout and "of the largest" in stdout


def test_weights_of_16_bits_without_sparse_layers_are_no_effect(pruned, tmp_path, capfd):
    assert run(pruned, tmp_path / "out.onnx", "--target", "gpu", "--weights", "fp16") == 0
    assert "Weights as fp16: no effect, since no layer is sparse" in capfd.readouterr().out
    assert (tmp_path / "out.onnx").read_bytes() == pruned.read_bytes()


def test_layers_that_get_narrower_are_listed(tmp_path, capfd):
    network = models.lenet_300_100()
    weight = next(tensor for tensor in network.graph.initializer if tensor.name == "fc3.weight")
    values = numpy_helper.to_array(weight).copy()
    values[:, 10:40] = 0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    assert run(save(network, tmp_path / "in.onnx"), tmp_path / "out.onnx", "--target", "cpu") == 0
    stdout, _ = capfd.readouterr()
    assert "Made narrower" in stdout
    assert "30 of 100 channels of 1 layer removed: fc2 100 → 70" in stdout


def test_channels_that_stay_for_the_hardware_are_counted(tmp_path, capfd):
    network = models.lenet_300_100()
    weight = next(tensor for tensor in network.graph.initializer if tensor.name == "fc3.weight")
    values = numpy_helper.to_array(weight).copy()
    values[:, 10:40] = 0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    assert run(save(network, tmp_path / "in.onnx"), tmp_path / "out.onnx", "--target", "gpu") == 0
    stdout, _ = capfd.readouterr()
    assert "28 of 100 channels of 1 layer removed: fc2 100 → 72" in stdout
    assert "2 more could go" in stdout


def test_the_html_report_is_a_page(pruned, tmp_path):
    report = tmp_path / "report.html"
    assert run(pruned, tmp_path / "out.onnx", "--report", report, "-q") == 0
    text = report.read_text()
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert "fc1" in text and "Verified" in text


def test_quiet_prints_nothing(pruned, tmp_path, capfd):
    assert run(pruned, tmp_path / "out.onnx", "-q") == 0
    assert capfd.readouterr() == ("", "")


def passes_for_cpu() -> list[str]:
    """Names, each once, in the order they run."""
    return list(dict.fromkeys(step.name for step in pipeline_for(load_target("cpu"))))


def test_verbose_lists_the_passes(pruned, tmp_path, capfd):
    assert run(pruned, tmp_path / "out.onnx", "-v") == 0
    out, _ = capfd.readouterr()
    for name in passes_for_cpu():
        assert name in out


def test_dry_run_writes_the_report_alone(pruned, tmp_path, capfd):
    report = tmp_path / "report.json"
    assert run(pruned, tmp_path / "out.onnx", "--dry-run", "--report", report) == 0
    assert "dry-run" in capfd.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "report.json"]
    data = json.loads(report.read_text())
    assert data["output"] is None
    assert data["verified"]["ok"]
    assert data["size_bytes"]["after"] < data["size_bytes"]["before"]


def test_dry_run_needs_no_out(pruned, tmp_path):
    assert run(pruned, "--dry-run", "-q") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_a_dense_network_comes_out_byte_for_byte(tmp_path, capfd):
    source, out = save(mlp(sparsity=0), tmp_path / "in.onnx"), tmp_path / "out.onnx"
    assert run(source, out) == 0
    assert out.read_bytes() == source.read_bytes()
    assert "Unchanged" in capfd.readouterr().out


def test_an_output_that_is_there_is_replaced(pruned, tmp_path):
    out = tmp_path / "out.onnx"
    out.write_text("old")
    assert run(pruned, out, "-q") == 0
    onnx.load(out)


def test_external_data_goes_in_and_out(tmp_path):
    source, out = tmp_path / "in.onnx", tmp_path / "sub" / "out.onnx"
    out.parent.mkdir()
    onnx.save_model(mlp(sparsity=0.9), str(source), save_as_external_data=True, location="weights.bin")
    assert run(source, out, "-q") == 0
    assert len(list(out.parent.iterdir())) == 2
    onnx.checker.check_model(str(out))


def test_no_check_writes_and_says_so(pruned, tmp_path, capfd):
    report = tmp_path / "report.json"
    assert run(pruned, tmp_path / "out.onnx", "--no-check", "--report", report) == 0
    assert "Not checked" in capfd.readouterr().out
    verified = json.loads(report.read_text())["verified"]
    assert not verified["ok"]
    assert verified["runs"] == 0
    assert verified["reason"]


def test_check_inputs_are_used(pruned, tmp_path, capfd):
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, x=np.ones((1, 512), np.float32))
    assert run(pruned, tmp_path / "out.onnx", "--check-inputs", inputs, "-q") == 0
    np.savez(inputs, y=np.ones((1, 512), np.float32))
    assert_refused(run(pruned, tmp_path / "out2.onnx", "--check-inputs", inputs), capfd, inputs)


def test_input_shape_sets_the_work_that_is_counted(tmp_path):
    source, report = save(mlp(sparsity=0.9, batch="n"), tmp_path / "in.onnx"), tmp_path / "report.json"
    macs = []
    for batch in (1, 8):
        assert run(source, "--dry-run", "-q", "--input-shape", f"x:{batch},512", "--report", report) == 0
        macs.append(json.loads(report.read_text())["macs"]["before"])
    assert macs[1] == 8 * macs[0]


def test_skipped_passes_do_not_run(pruned, tmp_path):
    names = passes_for_cpu()
    report = tmp_path / "report.json"
    arguments = [word for name in names[1:] for word in ("--skip-pass", name)]
    assert run(pruned, "--dry-run", "-q", "--report", report, *arguments) == 0
    assert {entry["name"] for entry in json.loads(report.read_text())["passes"]} == {names[0]}


def test_list_passes(capfd):
    assert run("--list-passes") == 0
    out, _ = capfd.readouterr()
    names = [name for name, _ in api.list_passes()]
    assert names
    assert [line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")] == names


def test_version_and_help(capfd):
    assert run("--version") == 0
    assert scalpel_graph.__version__ in capfd.readouterr().out
    assert run("--help") == 0
    out, _ = capfd.readouterr()
    for option in ("--target", "--report", "--no-check", "--rtol", "--skip-pass", "Exit code"):
        assert option in out


def test_as_a_module_and_piped_into_something_that_stops_reading(pruned, tmp_path):
    command = [sys.executable, "-m", "scalpel_graph", str(pruned), str(tmp_path / "out.onnx")]
    pipe = f"{' '.join(command)} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.onnx").exists()


def test_progress_shows_on_a_terminal(pruned, tmp_path):
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "scalpel_graph", str(pruned), str(tmp_path / "out.onnx")]
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writer, env=environment) as process:
        os.close(writer)
        shown = b""
        try:
            while chunk := os.read(reader, 4096):
                shown += chunk
        except OSError:  # the other end of a closed terminal
            pass
    os.close(reader)
    assert process.returncode == 0
    # Which of the steps are drawn depends on how long each takes; the last one stays until it is wiped.
    assert any(step in shown for step in (b"reading", b"pass", b"checking", b"writing"))
    assert b"\x1b[?25h" in shown, "the cursor was not given back"


# -- what is refused --------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    data = save(mlp(sparsity=0.9), path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def external(path: Path, location: str) -> None:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weight],
    )
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())


def outside(path: Path) -> None:
    (path.parent.parent / "secret.bin").write_bytes(bytes(64))
    external(path, "../secret.bin")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("This is not a model.\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
        lambda path: None,
        lambda path: path.mkdir(),
        truncated,
        lambda path: external(path, "missing.bin"),
        lambda path: external(path, "/etc/passwd"),
        outside,
    ],
    ids=["text", "empty", "noise", "missing", "folder", "truncated", "no-data", "absolute", "escaping"],
)
def test_unusable_models(damage, tmp_path, capfd):
    source = tmp_path / "folder" / "in.onnx"
    source.parent.mkdir()
    damage(source)
    there = sorted(tmp_path.rglob("*"))
    assert_refused(run(source, tmp_path / "out.onnx"), capfd, source)
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "toaster"], ["toaster", "cpu"]),
        (["--target", "missing.toml"], ["missing.toml"]),
        (["--input-shape", "x"], ["--input-shape", "x"]),
        (["--input-shape", "nobody:1,512"], ["nobody"]),
        (["--input-shape", "x:1,two"], ["x:1,two"]),
        (["--input-shape", "x:1,513"], ["x"]),
        (["--input-shape", "x:1"], ["x"]),
        (["--skip-pass", "everything"], ["everything"]),
        (["--check-inputs", "missing.npz"], ["missing.npz"]),
        (["--check-inputs", "x.npz", "--no-check"], ["--check-inputs", "--no-check"]),
        (["--report", "report.pdf"], ["report.pdf", ".json", ".html"]),
        (["--report", "nowhere/report.json"], ["nowhere"]),
        (["--threads", "0"], ["--threads"]),
        (["--threads", "many"], ["many"]),
        (["--weights", "fp8"], ["--weights", "fp8", "fp16", "bf16"]),
        (["--rtol", "-1"], ["--rtol"]),
        (["--atol", "nan"], ["--atol"]),
        (["--frobnicate"], ["--frobnicate"]),
        (["-v", "-q"], ["-q"]),
        (["third.onnx"], ["third.onnx"]),
    ],
)
def test_unusable_options(arguments, words, pruned, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(pruned, "out.onnx", *arguments), capfd, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_missing_arguments(pruned, capfd):
    assert_refused(run(), capfd, "IN.onnx")
    assert_refused(run(pruned), capfd, "OUT.onnx", "--dry-run")


def test_an_output_that_cannot_be_written(pruned, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(opt, "optimize", None)  # found before the work
    assert_refused(run(pruned, tmp_path / "no" / "out.onnx"), capfd, "no")
    assert_refused(run(pruned, tmp_path), capfd, tmp_path)
    assert_refused(run(pruned, "/proc/out.onnx"), capfd, "/proc/out.onnx")


def test_the_input_is_never_the_output(pruned, tmp_path, capfd):
    before = pruned.read_bytes()
    link = tmp_path / "link.onnx"
    link.symlink_to(pruned)
    hard_link = tmp_path / "hard.onnx"
    os.link(pruned, hard_link)
    for out in (pruned, link, hard_link, tmp_path / ".." / tmp_path.name / "in.onnx"):
        assert_refused(run(pruned, out), capfd, out)
    assert pruned.read_bytes() == before


def test_the_report_replaces_neither_model(pruned, tmp_path, capfd):
    named = tmp_path / "in.json"
    shutil.copy(pruned, named)
    before = named.read_bytes()
    assert_refused(run(named, tmp_path / "out.onnx", "--report", named), capfd, named)
    assert named.read_bytes() == before
    assert_refused(run(pruned, tmp_path / "out.json", "--report", tmp_path / "out.json"), capfd, "out.json")


# -- what fails -------------------------------------------------------------------------------------------


class Halve(Pass):
    name = "halve"
    summary = "Breaks a weight."

    def run(self, graph, context):
        weight = next(tensor for node in graph.nodes for tensor in node.inputs if tensor.name == "fc2.weight")
        weight.values = graph.constant(weight) / 2
        return PassResult(rewritten=["fc2"])


class Crash(Pass):
    name = "crash"
    summary = "Raises."

    def run(self, graph, context):
        raise RuntimeError("two\nlines")


def test_a_wrong_result_is_not_written(pruned, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(api.pipelines, "pipeline_for", lambda target: [Halve()])
    assert_refused(run(pruned, tmp_path / "out.onnx"), capfd, "in.onnx", "not", expected=3)
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_tolerances_decide_what_is_wrong(pruned, tmp_path, monkeypatch):
    monkeypatch.setattr(api.pipelines, "pipeline_for", lambda target: [Halve()])
    assert run(pruned, tmp_path / "out.onnx", "-q", "--atol", "1e9") == 0


def test_a_failing_pass_is_one_line(pruned, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(api.pipelines, "pipeline_for", lambda target: [Crash()])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert_refused(run(pruned, tmp_path / "out.onnx"), capfd, "crash", "two lines", expected=3)
    assert not (tmp_path / "out.onnx").exists()


def test_a_bug_is_one_line_and_a_traceback_on_request(pruned, tmp_path, capfd, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("no idea")

    monkeypatch.setattr(opt, "optimize", broken)
    assert_refused(run(pruned, tmp_path / "out.onnx"), capfd, "no idea", "report", expected=3)
    assert run(pruned, tmp_path / "out.onnx", "-v") == 3
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(number, code, pruned, tmp_path):
    program = textwrap.dedent("""
        import sys, time
        from scalpel_graph import io
        from scalpel_graph.cli import opt

        def slow(descriptor):
            print("writing", flush=True)
            time.sleep(60)

        io.os.fsync = slow
        sys.exit(opt.main(sys.argv[1:]))
    """)
    command = [sys.executable, "-c", program, str(pruned), str(tmp_path / "out.onnx"), "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    assert err.count("\n") <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


@pytest.mark.parametrize("name", ["opt", "bench"])
def test_ctrl_c_while_the_libraries_are_being_imported_is_quiet(name):
    program = textwrap.dedent(f"""
        import os, signal, sys
        from scalpel_graph.cli import entry

        class Interrupts:
            def find_spec(self, module, *rest):
                if module == "numpy":
                    os.kill(os.getpid(), signal.SIGINT)

        assert "numpy" not in sys.modules, "the entry point is to be light"
        sys.meta_path.insert(0, Interrupts())
        entry.{name}()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
