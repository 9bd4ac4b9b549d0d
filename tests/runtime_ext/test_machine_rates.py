"""What the machine can do at most: that it is measured, not how fast it is."""

import math

import pytest

from scalpel_graph import _kernels, near_cores

ISAS = [isa for isa in _kernels.isas() if isa != "scalar"]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 3])
def test_rates_are_measured(isa, threads):
    rates = [_kernels.peak_flops(isa, threads=threads, seconds=0.0)]
    for nbytes in (1024, 100_001):
        for copy in (False, True):
            rates.append(_kernels.bandwidth(isa, nbytes, copy=copy, threads=threads, seconds=0.0))
    assert all(math.isfinite(rate) and rate > 1e6 for rate in rates)


@pytest.mark.parametrize("isa", ISAS)
def test_unusable_arguments(isa):
    with pytest.raises(ValueError, match="too few bytes"):
        _kernels.bandwidth(isa, 511)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        _kernels.bandwidth(isa, 1024, threads=0)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        _kernels.peak_flops(isa, threads=0)


def test_the_scalar_reference_has_no_rates():
    for measure in (lambda: _kernels.peak_flops("scalar"), lambda: _kernels.bandwidth("scalar", 1024)):
        with pytest.raises(ValueError, match="no vector kernels"):
            measure()


def test_cores_exchange_data_at_some_rate():
    first, *others = near_cores.usable_cores()
    rate = _kernels.exchange_bandwidth(first, others[0] if others else first)
    assert math.isfinite(rate) and rate > 1e6


def test_exchanging_nothing_is_refused():
    with pytest.raises(ValueError, match="bytes must be at least 64"):
        _kernels.exchange_bandwidth(0, 0, bytes=63)
    with pytest.raises(ValueError, match="rounds at least 1"):
        _kernels.exchange_bandwidth(0, 0, rounds=0)
