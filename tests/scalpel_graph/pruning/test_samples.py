from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from scalpel_graph.errors import InputError
from scalpel_graph.pruning.samples import check_samples, load_labels, load_samples, random_samples
from tests.scalpel_graph.pruning.small_models import make_model, normal, perceptron


def two_inputs(batch="n"):
    node = helper.make_node("Add", ["a", "b"], ["y"])
    return make_model([node], {}, {"a": [batch, 3, "size"], "b": [batch, 3, "size"]}, ["y"])


def check(arrays, model=None):
    return check_samples(arrays, model or perceptron(), Path("x.npz"))


def test_batches_of_an_open_size():
    samples = check({"x": normal(40, 12)})
    assert [len(batch["x"]) for batch in samples.batches()] == [16, 16, 8]


def test_batches_of_a_fixed_size():
    samples = check({"x": normal(12, 12)}, perceptron(batch=4))
    assert [len(batch["x"]) for batch in samples.batches()] == [4, 4, 4]
    fitted, judged = samples.split(0.2)
    assert (fitted.count, judged.count) == (8, 4)


def test_split_keeps_the_last_samples_and_their_labels():
    samples = check({"x": normal(10, 12)}).with_labels(np.arange(10), "labels")
    fitted, judged = samples.split(0.2)
    np.testing.assert_array_equal(judged.arrays["x"], normal(10, 12)[8:])
    assert judged.labels.tolist() == [8, 9]
    assert fitted.count == 8


def test_one_sample_is_not_split():
    assert check({"x": normal(1, 12)}).split(0.2)[1] is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no array for input 'x'; it must hold: x"),
        ({"z": normal(4, 12)}, "no array for input 'x'; it must hold: x"),
        ({"x": normal(4, 12), "z": normal(4, 12)}, "the model has no input 'z'"),
        ({"x": normal(4, 13)}, r"input 'x' has shape \[4, 13\], but the model takes \[n, 12\]; the first"),
        ({"x": normal(12)}, r"input 'x' has shape \[12\], but the model takes \[n, 12\]"),
        ({"x": np.float32(1)}, "holds no samples"),
        ({"x": normal(0, 12)}, "holds no samples"),
        ({"x": normal(4, 12).astype(np.float64)}, "input 'x' has type float64, but the model takes float32"),
        ({"x": np.where(np.arange(48).reshape(4, 12) == 30, np.nan, 1).astype(np.float32)},
         "input 'x' holds NaN or infinity, first in sample 2"),
        ({"x": np.full((2, 12), np.inf, np.float32)}, "holds NaN or infinity, first in sample 0"),
    ],
)  # fmt: skip
def test_unusable(arrays, message):
    with pytest.raises(InputError, match=f"x.npz: .*{message}"):
        check(arrays)


def test_counts_that_differ():
    arrays = {"a": normal(4, 3, 2), "b": normal(5, 3, 2)}
    with pytest.raises(InputError, match="must hold equally many samples, but hold: a 4, b 5"):
        check(arrays, two_inputs())


def test_symbols_that_differ():
    with pytest.raises(InputError, match=r"x.npz: .*dimension 2 .* must be 2, not 7"):
        check({"a": normal(4, 3, 2), "b": normal(4, 3, 7)}, two_inputs())


def test_no_multiple_of_a_fixed_batch():
    with pytest.raises(InputError, match="10 samples, but the model takes 4 at a time"):
        check({"x": normal(10, 12)}, perceptron(batch=4))


def test_labels(tmp_path):
    np.save(tmp_path / "l.npy", np.arange(4))
    np.savez(tmp_path / "l.npz", labels=np.arange(4))
    np.savez(tmp_path / "two.npz", a=np.arange(4), b=np.arange(4))
    np.save(tmp_path / "f.npy", np.ones(4))
    assert (
        load_labels(tmp_path / "l.npy").tolist() == load_labels(tmp_path / "l.npz").tolist() == [0, 1, 2, 3]
    )
    with pytest.raises(InputError, match="holds 2 arrays; labels are one"):
        load_labels(tmp_path / "two.npz")
    with pytest.raises(InputError, match="labels must be one array of whole numbers"):
        load_labels(tmp_path / "f.npy")
    with pytest.raises(InputError, match=r"not a readable .npy file"):
        load_labels(tmp_path / "none.npy")
    with pytest.raises(InputError, match=r"labels of shape \[3\] for 4 samples"):
        check({"x": normal(4, 12)}).with_labels(np.arange(3), "l.npy")


def test_load(tmp_path):
    np.savez(tmp_path / "x.npz", x=normal(4, 12))
    assert load_samples(tmp_path / "x.npz", perceptron()).count == 4
    with pytest.raises(InputError, match="no such file"):
        load_samples(tmp_path / "none.npz", perceptron())


def test_random_samples_suit_the_model():
    samples = random_samples(two_inputs(batch=2), 3, {"size": 5})
    assert samples.arrays["a"].shape == (6, 3, 5)
    assert samples.batch == 2
