import gzip
import struct

import numpy as np
import pytest

from models.paper.data import FASHION_MNIST_FOLDER, cifar10, fashion_mnist, padded_fashion_mnist
from models.paper.whitening import Zca, global_contrast_normalized
from scalpel_graph.errors import InputError
from tests.models.paper.fashion_mnist import needs_fashion_mnist

rng = np.random.default_rng(0)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def fashion(tmp_path):
    for part, count in (("train", 30), ("t10k", 10)):
        write_idx(
            tmp_path / f"{part}-images-idx3-ubyte.gz", rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
        )
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", rng.integers(10, size=count, dtype=np.uint8))
    return tmp_path


def write_cifar(folder, images=20):
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        records = rng.integers(256, size=(images, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(folder / f"{name}.bin")


@needs_fashion_mnist
def test_fashion_mnist_as_debian_has_it():
    data = fashion_mnist()
    assert data.train_images.shape == (60_000, 1, 28, 28) and data.test_images.shape == (10_000, 1, 28, 28)
    assert data.train_images.dtype == np.float32 and data.train_labels.dtype == np.int64
    assert abs(data.train_images.mean()) < 1e-3 and abs(data.train_images.std() - 1) < 1e-3
    assert np.bincount(data.train_labels).tolist() == [6000] * 10


def test_fashion_mnist_from_a_folder(fashion):
    data = fashion_mnist(fashion)
    with gzip.open(fashion / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(10, 28, 28)
    np.testing.assert_allclose(data.test_images[:, 0] * 0.3530 + 0.2860, pixels / 255, atol=1e-6)
    assert (
        data.first(7, 3).train_images.shape == (7, 1, 28, 28) and len(data.first(7, None).test_labels) == 10
    )


def test_padding_adds_background_and_channels(fashion):
    plain, padded = fashion_mnist(fashion), padded_fashion_mnist(fashion)
    assert padded.train_images.shape == (30, 3, 32, 32)
    for channel in range(3):
        np.testing.assert_array_equal(padded.train_images[:, channel, 2:30, 2:30], plain.train_images[:, 0])
    np.testing.assert_allclose(padded.train_images[:, :, :2], -0.2860 / 0.3530, rtol=1e-6)
    np.testing.assert_array_equal(padded.test_labels, plain.test_labels)


def test_missing_data_names_the_package(tmp_path):
    with pytest.raises(
        InputError, match=r"is missing: install Debian's package dataset-fashion-mnist, or .*--data"
    ):
        fashion_mnist(tmp_path)
    assert str(FASHION_MNIST_FOLDER) == "/usr/share/datasets/fashion-mnist"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "cannot be read"),
        (gzip.compress(bytes([0, 0, 8, 1]) + bytes(8)), "not an IDX file of bytes with 3 dimensions"),
        (gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 28, 28) + bytes(9)), "cut off: 9 bytes"),
        (
            gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 28, 28) + bytes(784)),
            "1 train images have 30",
        ),
    ],
)
def test_broken_files_are_named(fashion, content, message):
    (fashion / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        fashion_mnist(fashion)


def test_cifar_is_normalized_and_whitened_by_its_training_images(tmp_path, monkeypatch):
    write_cifar(tmp_path)
    fitted = []

    class Doubles:  # real whitening of 3,072 pixels takes seconds; it is tested below
        @staticmethod
        def fit(images):
            fitted.append(images)
            return lambda images: 2 * images

    monkeypatch.setattr("models.paper.data.Zca", Doubles)
    data = cifar10(tmp_path)
    assert data.train_images.shape == (100, 3, 32, 32) and data.test_images.shape == (20, 3, 32, 32)
    records = np.fromfile(tmp_path / "data_batch_2.bin", np.uint8).reshape(-1, 3073)
    np.testing.assert_array_equal(data.train_labels[20:40], records[:, 0])
    pixels = global_contrast_normalized(records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32))
    np.testing.assert_array_equal(fitted[0][20:40], pixels)
    np.testing.assert_array_equal(data.train_images, 2 * fitted[0])
    test = np.fromfile(tmp_path / "test_batch.bin", np.uint8).reshape(-1, 3073)
    pixels = global_contrast_normalized(test[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32))
    np.testing.assert_array_equal(data.test_images, 2 * pixels)


def test_contrast_normalisation():
    images = rng.uniform(0, 255, (5, 3, 8, 8)).astype(np.float32)
    images[2] = 7.0
    normal = global_contrast_normalized(images).reshape(5, -1)
    np.testing.assert_allclose(normal.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), [55, 55, 0, 55, 55], rtol=1e-4, atol=1e-3)


def test_whitening_takes_correlation_out():
    mixed = (rng.standard_normal((4000, 6)) @ rng.standard_normal((6, 6)) * 9 + 3).astype(np.float32)
    zca = Zca.fit(mixed, bias=1e-4)
    white = zca(mixed)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(6), atol=2e-2)
    np.testing.assert_allclose(zca.matrix, zca.matrix.T, rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--data names the folder"),
        (bytes(3000), "3000 bytes"),
        (bytes([11]) + bytes(3072), "a label is 11"),
    ],
)
def test_broken_cifar_is_named(tmp_path, content, message):
    write_cifar(tmp_path)
    file = tmp_path / "data_batch_3.bin"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        cifar10(tmp_path)
