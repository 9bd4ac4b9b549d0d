"""SCALPEL_ISA picks the instruction set, or says why it cannot."""

import numpy as np
import pytest

from scalpel_graph import _kernels


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
