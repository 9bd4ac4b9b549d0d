"""What the paper does to CIFAR-10 beforehand: global contrast normalisation, then ZCA whitening.

As in "An Analysis of Single-Layer Networks" (Coates, Lee, Ng, 2011) and Maxout networks' data.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]


def global_contrast_normalized(images: Images, scale: float = 55.0, least: float = 1e-8) -> Images:
    """Each image with its mean taken off, and a Euclidean norm of ``scale``.

    Args:
        images: ``[n, ...]``.
        scale: the norm.
        least: an image of a smaller norm has no contrast, and is only centred.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True) / scale
    norm[norm < least] = 1.0
    normalized: Images = (flat / norm).astype(np.float32)
    return normalized.reshape(images.shape)


@dataclass(frozen=True)
class Zca:
    """Takes the correlation out of pixels, staying as near to the image as that allows.

    Attributes:
        mean: ``[pixels]``.
        matrix: ``[pixels, pixels]``, symmetric.
    """

    mean: Images
    matrix: Images

    @classmethod
    def fit(cls, images: Images, bias: float = 0.1) -> "Zca":
        """Fits it.

        Args:
            images: ``[n, ...]``.
            bias: is added to all variances, so that directions in which images hardly differ stay small.
        """
        flat = images.reshape(len(images), -1)
        mean = flat.mean(axis=0, dtype=np.float64)
        centred = flat - mean
        variances, directions = np.linalg.eigh(centred.T @ centred / len(flat))
        gains = 1 / np.sqrt(np.maximum(variances, 0) + bias)
        matrix = (directions * gains) @ directions.T
        return cls(mean.astype(np.float32), matrix.astype(np.float32))

    def __call__(self, images: Images) -> Images:
        """Whitens images of the shape it was fitted on."""
        flat = images.reshape(len(images), -1)
        return ((flat - self.mean) @ self.matrix).astype(np.float32).reshape(images.shape)
