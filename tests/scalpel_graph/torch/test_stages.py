import numpy as np
import pytest

from scalpel_graph import InputError
from scalpel_graph.torch import cubic_stages, linear_stages


def test_linear_stages_are_the_papers_thresholds():
    np.testing.assert_allclose(linear_stages(0.04, 0.08, 5), [0.04, 0.05, 0.06, 0.07, 0.08])
    assert linear_stages(0.1, 0.3, 7)[-1] == 0.3


def test_one_stage_is_the_last():
    assert linear_stages(0.04, 0.08, 1) == [0.08]
    assert cubic_stages(0.9, 1) == [0.9]


def test_cubic_stages():
    expected = [0.9 + (0.1 - 0.9) * (1 - t / 4) ** 3 for t in (1, 2, 3, 4)]
    np.testing.assert_allclose(cubic_stages(0.9, 4, first=0.1), expected)
    assert cubic_stages(0.9, 4)[-1] == 0.9
    assert (np.diff(cubic_stages(0.9, 6), 2) < 0).all()


@pytest.mark.parametrize("stages", [0, -1])
def test_no_stage(stages):
    with pytest.raises(InputError, match=r"^stages must be at least 1, got"):
        linear_stages(0, 1, stages)
    with pytest.raises(InputError, match=r"^stages must be at least 1, got"):
        cubic_stages(1, stages)
