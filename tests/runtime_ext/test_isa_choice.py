"""SCALPEL_ISA picks the instruction set, or says why it cannot."""

import numpy as np
import pytest

from scalpel_graph import _kernels
from tests.runtime_ext import emulated_kernels, instruction_sets


def test_scalar_is_always_there_and_the_best_is_the_default(monkeypatch):
    monkeypatch.delenv("SCALPEL_ISA", raising=False)
    assert _kernels.isas()[0] == "scalar"
    assert _kernels.chosen_isa() == _kernels.isas()[-1]


@pytest.mark.parametrize("isa", _kernels.isas())
def test_the_environment_overrides(monkeypatch, isa):
    monkeypatch.setenv("SCALPEL_ISA", isa)
    assert _kernels.chosen_isa() == isa


def test_an_unknown_isa_is_an_error(monkeypatch):
    monkeypatch.setenv("SCALPEL_ISA", "mmx")
    with pytest.raises(ValueError, match=r"SCALPEL_ISA=mmx cannot run here; this machine has: scalar"):
        _kernels.chosen_isa()
    with pytest.raises(ValueError, match="SCALPEL_ISA"):
        _kernels.Gemm(
            np.ones((1, 1, 1), np.float32), np.array([0, 1], np.int32), np.zeros(1, np.uint16), (1, 1)
        )


@pytest.mark.parametrize("cpu", instruction_sets.EMULATED_CPUS)
def test_an_aarch64_processor_runs_neon_kernels(cpu):
    server = emulated_kernels.server(cpu)
    assert [isa.decode() for isa in server.ask("isas")] == ["scalar", "neon"]
    assert server.ask("chosen_isa") == [b"neon"]


def test_the_environment_overrides_on_aarch64():
    for isa in ("scalar", "neon"):
        server = emulated_kernels.Server("cortex-a53", SCALPEL_ISA=isa)
        assert server.ask("chosen_isa") == [isa.encode()]
        server.close()
    server = emulated_kernels.Server("cortex-a53", SCALPEL_ISA="avx2")
    with pytest.raises(ValueError, match="SCALPEL_ISA=avx2 cannot run here; this machine has: scalar, neon"):
        server.ask("chosen_isa")
    server.close()
