"""Images to train on: Fashion-MNIST as Debian packages it, and CIFAR-10 for people who have it."""

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.paper.whitening import Zca, global_contrast_normalized
from scalpel_graph.errors import InputError

#: Where Debian's package puts it.
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

#: Mean and standard deviation of the pixels of Fashion-MNIST's training images, of 1.
_FASHION_MEAN, _FASHION_STD = 0.2860, 0.3530

_CIFAR_RECORD = 1 + 3 * 32 * 32
_CLASSES = 10


@dataclass(frozen=True)
class Data:
    """A data set with ten classes.

    Attributes:
        name: for people.
        train_images, test_images: ``[n, channels, height, width]`` float32, normalized.
        train_labels, test_labels: ``[n]`` int64, 0 to 9.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels

    def first(self, train: int | None, test: int | None) -> "Data":
        """The first so many images; None for all."""
        return Data(
            self.name,
            self.train_images[:train],
            self.train_labels[:train],
            self.test_images[:test],
            self.test_labels[:test],
        )


def fashion_mnist(folder: Path | None = None) -> Data:
    """60,000 and 10,000 images ``[1, 28, 28]`` of mean 0 and standard deviation 1.

    Args:
        folder: holds the four ``.gz`` files; None for `FASHION_MNIST_FOLDER`.

    Raises:
        InputError: a file is missing or broken.
    """
    folder = FASHION_MNIST_FOLDER if folder is None else folder
    parts: list[Any] = []
    for part in ("train", "t10k"):
        images = _idx(folder / f"{part}-images-idx3-ubyte.gz", 3)
        labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)
        if len(images) != len(labels):
            raise InputError(f"{folder}: {len(images)} {part} images have {len(labels)} labels")
        if images.shape[1:] != (28, 28) or labels.max(initial=0) >= _CLASSES:
            raise InputError(f"{folder}: the {part} files are not Fashion-MNIST's 28×28 images of 10 classes")
        pixels = (images[:, None].astype(np.float32) / 255 - _FASHION_MEAN) / _FASHION_STD
        parts += [pixels.astype(np.float32), labels.astype(np.int64)]
    return Data("Fashion-MNIST", *parts)


def padded_fashion_mnist(folder: Path | None = None) -> Data:
    """Fashion-MNIST in the size of CIFAR-10, ``[3, 32, 32]``: two pixels of background around, thrice.

    Raises:
        InputError: a file is missing or broken.
    """
    data = fashion_mnist(folder)
    black = -_FASHION_MEAN / _FASHION_STD

    def pad(images: Images) -> Images:
        padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=black)
        return np.ascontiguousarray(padded.repeat(3, axis=1))

    return Data(
        "Fashion-MNIST, padded to 3×32×32",
        pad(data.train_images),
        data.train_labels,
        pad(data.test_images),
        data.test_labels,
    )


def cifar10(folder: Path) -> Data:
    """CIFAR-10 in its binary version, contrast-normalized and whitened (ZCA) as in the paper.

    Args:
        folder: holds ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.

    Raises:
        InputError: a file is missing or broken.
    """
    batches = [_cifar_batch(folder / f"data_batch_{n}.bin") for n in range(1, 6)]
    train = global_contrast_normalized(np.concatenate([images for images, _ in batches]))
    images, test_labels = _cifar_batch(folder / "test_batch.bin")
    zca = Zca.fit(train)
    return Data(
        "CIFAR-10, contrast-normalized and whitened",
        zca(train),
        np.concatenate([labels for _, labels in batches]),
        zca(global_contrast_normalized(images)),
        test_labels,
    )


#: By the name that ``--dataset`` takes.
DATASETS: dict[str, Callable[[Path | None], Data]] = {
    "fashion-mnist": fashion_mnist,
    "padded-fashion-mnist": padded_fashion_mnist,
    "cifar-10": lambda folder: cifar10(_needed(folder)),
}


def _needed(folder: Path | None) -> Path:
    if folder is None:
        raise InputError(
            "CIFAR-10 does not come with the system: give the folder of its .bin files with --data"
        )
    return folder


def _idx(path: Path, dimensions: int) -> Bytes:
    """Reads a gzipped IDX file of bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"{path} is missing: install Debian's package dataset-fashion-mnist, or give the folder of its"
            " .gz files with --data"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise InputError(f"{path} is not an IDX file of bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, dtype=np.uint8, offset=header)
    if values.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path} is cut off: {values.size} bytes do not make {'×'.join(map(str, shape))}")
    return values.reshape(shape)


def _cifar_batch(path: Path) -> tuple[Images, Labels]:
    """Images ``[n, 3, 32, 32]`` of 0 to 255, and labels."""
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): --data names the folder of CIFAR-10's binary version"
        ) from error
    if content.size == 0 or content.size % _CIFAR_RECORD:
        raise InputError(f"{path} is not a batch of CIFAR-10's binary version: {content.size} bytes")
    records = content.reshape(-1, _CIFAR_RECORD)
    if records[:, 0].max() >= _CLASSES:
        raise InputError(
            f"{path} is not a batch of CIFAR-10's binary version: a label is {records[:, 0].max()}"
        )
    return records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32), records[:, 0].astype(np.int64)
