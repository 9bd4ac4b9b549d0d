"""All forms of a quantized network give the same bytes: numpy, ONNX Runtime both ways, C here and in QEMU."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from scalpel_graph.mcu import emit_c, reference
from scalpel_graph.mcu.network import DTYPES, LIMITS, STORED, ArgMax, Multiply
from scalpel_graph.mcu.program import Program, accumulator_bits
from scalpel_graph.report import McuReport
from tests.mcu_networks import NETWORKS, inputs, quantized, require_cross_tools, samples
from tests.ort_sessions import run

_SANITIZED = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"


@pytest.fixture(params=[(name, dtype) for name in NETWORKS for dtype in DTYPES], ids="-".join)
def case(request):
    name, dtype = request.param
    model = NETWORKS[name][0]()
    return model, *quantized(model, dtype)


@pytest.fixture(params=DTYPES)
def whole(request):
    """The network with everything in it, and its bundle's program."""
    model = NETWORKS["many-operators"][0]()
    return model, quantized(model, request.param)[0]


def stored_vectors(program: Program, count: int = 20):
    """Edges of what can be stored, and random numbers."""
    network = program.network
    value = network.values[network.input]
    low, high = LIMITS[network.dtype]
    random = np.random.default_rng(5).integers(low, high + 1, (count, *value.shape))
    return np.concatenate([emit_c.edge_inputs(network), random])


def write_bundle(program: Program, model, folder: Path) -> Path:
    report = McuReport("q15", 0, 0, program.flash_bytes, program.arena_bytes, 0.0, None, 1, [])
    emit_c.emit(program, samples(model), report, b"model", folder)
    return folder


def make(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr  # QEMU prints to the second


def test_onnx_runtime_gives_the_bytes_of_the_reference_both_ways(case):
    _, program, result = case
    network = program.network
    stored = stored_vectors(program)
    form = network.values[network.input].format
    floats = ((stored - form.zero_point) * form.scale).astype(np.float32)
    np.testing.assert_array_equal(reference.quantize_input(network, floats), stored)
    expected = reference.run(network, stored)
    if not isinstance(network.layers[-1], ArgMax):
        form = network.values[network.output].format
        expected = (expected.astype(np.float32) - np.float32(form.zero_point)) * np.float32(form.scale)
    for library in (True, False):
        actual = run(result, {network.input: floats}, library=library)
        np.testing.assert_array_equal(actual, expected)


def test_answers_are_near_those_of_the_float_network(case):
    model, program, result = case
    feeds = inputs(model, 30, seed=9)
    expected, actual = run(model, feeds), run(result, feeds)
    if expected.dtype.kind == "i":
        assert (expected == actual).mean() >= 0.9
    else:
        error = np.linalg.norm(expected - actual) / np.linalg.norm(expected)
        assert error < {"q15": 0.05, "int8": 0.2, "int8x16": 0.05}[program.network.dtype]


@pytest.mark.parametrize("name", ["many-operators", "one-dimensional", "long-sums"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bundle_gives_the_same_bytes_on_this_machine_under_sanitizers(name, dtype, tmp_path):
    model = NETWORKS[name][0]()
    program, _ = quantized(model, dtype)
    folder = write_bundle(program, model, tmp_path / "bundle")
    assert "are right" in make(folder, "host", f"CFLAGS={_SANITIZED}")
    stored = stored_vectors(program)
    dtype = STORED[program.network.dtype]
    emit_c.channels_last(stored).astype(dtype).tofile(folder / "in.bin")
    subprocess.run(["build/host", "in.bin", "out.bin"], cwd=folder, check=True)
    expected = emit_c.channels_last(reference.run(program.network, stored)).astype(dtype)
    assert (folder / "out.bin").read_bytes() == expected.tobytes()


@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4"])
def test_the_self_test_passes_on_emulated_cores(whole, core, tmp_path):
    require_cross_tools()
    model, program = whole
    folder = write_bundle(program, model, tmp_path / "bundle")
    assert "are right" in make(folder, "qemu", f"CORE={core}")


def test_the_bundle_answers_inputs_of_ones_own_in_qemu_and_counts(tmp_path):
    require_cross_tools()
    model = NETWORKS["perceptron"][0]()
    program, _ = quantized(model)
    folder = write_bundle(program, model, tmp_path / "bundle")
    stored = stored_vectors(program, 100)
    stored.astype(np.int16).tofile(folder / "in.bin")
    make(folder, "qemu-full")
    expected = reference.run(program.network, stored).astype(np.int16)
    assert (folder / "out.bin").read_bytes() == expected.tobytes()
    counted = re.search(r"^(\d+) instructions$", make(folder, "count"), re.MULTILINE)
    assert counted is not None
    assert 100 < int(counted[1]) < 20000
    assert ".elf" in make(folder, "size")


def test_a_wrong_byte_fails_the_self_test(tmp_path):
    model = NETWORKS["perceptron"][0]()
    program, _ = quantized(model)
    folder = write_bundle(program, model, tmp_path / "bundle")
    weights = folder / "src" / "perceptron_weights.c"
    text = weights.read_text()
    assert ".shift = " in text
    weights.write_text(text.replace(".max = 32767", ".max = 1"))
    done = subprocess.run(["make", "host"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is wrong" in done.stdout


def test_bundles_are_the_same_bytes_every_time_and_keep_other_folders(tmp_path):
    model = NETWORKS["many-operators"][0]()
    folders = [write_bundle(quantized(model)[0], model, tmp_path / name) for name in ("a", "b")]
    again = write_bundle(quantized(model)[0], model, folders[1])  # over a bundle
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in (folders[0], again)]
    assert files[0] == files[1]
    for name in files[0]:
        if (again / name).is_file():
            assert (again / name).read_bytes() == (folders[0] / name).read_bytes()
            assert str(tmp_path) not in (again / name).read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(emit_c.InputError, match="holds files that are not a bundle"):
        write_bundle(quantized(model)[0], model, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "other"]


def test_sums_of_64_bits_are_used_where_32_may_overflow():
    """In a dense and a sparse layer of int8 weights, with 16-bit activations alone."""
    model = NETWORKS["long-sums"][0]()
    for dtype, wide in (("int8", []), ("int8x16", [True, False])):
        program, _ = quantized(model, dtype)
        codes = [code for code in program.layers if accumulator_bits(code) == 64]
        assert [code.layer.group_shape is None for code in codes] == wide


def test_every_group_shape_is_used_somewhere():
    used = {
        layer.group_shape
        for name in ("perceptron", "blocks", "many-operators", "one-dimensional")
        for dtype in DTYPES
        for layer in quantized(NETWORKS[name][0](), dtype)[0].network.layers
        if isinstance(layer, Multiply)
    }
    assert {None, (1, 2), (4, 2), (1, 4), (4, 4)} <= used
