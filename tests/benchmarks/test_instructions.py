import pytest

from benchmarks import instructions
from benchmarks.instructions import Layer, count
from scalpel_graph.errors import InputError
from tests.runtime_ext.emulated_kernels import EMULATOR, cross_build


def test_instructions_are_counted_exactly(tmp_path):
    program, plugin = instructions._build(cross_build(), tmp_path)
    command = [EMULATOR, "-cpu", "cortex-a72", "-plugin", plugin, program]
    layer = Layer("small", ("gemm", 64, 64, 24))
    blocks, singles = (count(command, "neon", layer, shape, 0.5) for shape in ((8, 1), (1, 1)))
    assert blocks == count(command, "neon", layer, (8, 1), 0.5)
    assert 0.25 < blocks < singles < 4
    assert count(command, "scalar", layer, (8, 1), 0.5) > singles


def test_a_dot_product_saves_instructions(tmp_path):
    program, plugin = instructions._build(cross_build(), tmp_path)
    command = [EMULATOR, "-cpu", "cortex-a76", "-plugin", plugin, program]
    layer = Layer("small", ("quantized_conv", 64, 64, 1, 1, 1, 8))
    plain, dots = (count(command, kernels, layer, (8, 1), 0.5) for kernels in instructions.QUANTIZED_SETS)
    assert 34 / 256 < dots < plain < 1


def test_a_build_that_is_missing_is_told(tmp_path):
    with pytest.raises(
        InputError, match=r"libscalpel_kernels\.a: not there; make it as .*aarch64-linux-gnu\.cmake"
    ):
        instructions._build(tmp_path, tmp_path)
