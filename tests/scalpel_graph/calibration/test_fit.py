import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalpel_graph.calibration.fit import Equation, fit, nnls
from scalpel_graph.cost import Amount, price_us

SIZES = (10.0, 100.0, 1000.0)
PRICES = {"call": ((1.0, 3.0),), "work": ((10.0, 0.5), (100.0, 0.2), (1000.0, 0.1)), "input": ((1.0, 0.4),)}


def equations(count=200, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        amounts = {
            "work": Amount(10 ** rng.uniform(2, 6), 10 ** rng.uniform(0.5, 3.5)),
            "input": Amount(10 ** rng.uniform(2, 5)),
            "idle": Amount(10 ** rng.uniform(2, 5)),
        }
        found.append(
            Equation(amounts, price_us({1: PRICES}, amounts, 1) * (1 + noise * rng.standard_normal()))
        )
    return found


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 1000))
def test_nnls_meets_the_optimality_conditions(rows, columns, seed):
    """No entry is negative; the gradient is nothing where an entry is positive and not downhill elsewhere."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((rows, columns)), rng.standard_normal(rows)
    x = nnls(A, b)
    gradient = A.T @ (A @ x - b)
    assert (x >= 0).all() and (gradient >= -1e-7).all()
    np.testing.assert_allclose(gradient[x > 0], 0, atol=1e-7)


def test_prices_are_found_again():
    found = fit(equations(), ("work", "input", "idle"), {"work": SIZES})
    for name, table in PRICES.items():
        for (size, price), (true_size, true_price) in zip(found[name], table, strict=True):
            assert size == true_size and price == pytest.approx(true_price, rel=0.05), name


def test_what_costs_nothing_has_next_to_no_price():
    table = fit(equations(), ("work", "input", "idle"), {"work": SIZES}).get("idle", ((1.0, 0.0),))
    assert table[0][1] < 0.05 * PRICES["input"][0][1]


def test_outliers_do_not_move_the_prices():
    rng = np.random.default_rng(0)
    disturbed = [
        Equation(e.amounts, e.us * (3.0 if rng.random() < 0.1 else 1.0)) for e in equations(400, noise=0.02)
    ]
    found = fit(disturbed, ("work", "input"), {"work": SIZES})
    errors = [abs(price_us({1: found}, e.amounts, 1) / e.us - 1) for e in equations(400)]
    assert np.median(errors) < 0.03


def test_sizes_that_do_not_occur_have_no_points():
    few = [e for e in equations() if 20 < e.amounts["work"].size < 90]
    assert [size for size, _ in fit(few, ("work",), {"work": (1.0, *SIZES, 1e4)})["work"]] == [10.0, 100.0]


def test_more_work_never_looks_faster():
    """Whatever was measured: prices are not negative."""
    rng = np.random.default_rng(0)
    nonsense = [Equation(e.amounts, float(10 ** rng.uniform(0, 3))) for e in equations(50)]
    found = fit(nonsense, ("work", "input", "idle"), {"work": SIZES})
    assert all(price >= 0 for table in found.values() for _, price in table)
