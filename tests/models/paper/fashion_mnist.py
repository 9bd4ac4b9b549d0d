"""What tests that train on Fashion-MNIST are marked with."""

import os

import pytest

from models.paper.data import FASHION_MNIST_FOLDER

#: Skips a test where the images are missing; in CI it then fails.
needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST_FOLDER.is_dir() and os.environ.get("CI") != "true",
    reason="Fashion-MNIST not found; on Debian: apt-get install dataset-fashion-mnist",
)
