"""Runs every kernel on inputs that end, or begin, at a page that must not be touched; a stray read kills it.

Run as a program by test_guarded_input.py, for an instruction set.
"""

import ctypes
import itertools
import mmap
import sys
from collections.abc import Iterator

import numpy as np

from tests.lrn_layer import lrn
from tests.runtime_ext import instruction_sets
from tests.runtime_ext.kernel_reference import ConvCase, Floats, conv_kernel, gemm_kernel, sparse_weights

PAGES = 8
GROUP_SHAPES = [(1, 1), (1, 8), (2, 1), (4, 1), (8, 1)]
CONVS = [
    ((12, 5, 1, 1), ConvCase((1, 1), (0, 0, 0, 0), (1, 1))),
    ((12, 5, 3, 3), ConvCase((1, 1), (0, 0, 0, 0), (1, 1))),
    ((12, 5, 3, 2), ConvCase((1, 1), (0, 0, 0, 0), (1, 2))),
    ((12, 5, 3, 3), ConvCase((1, 1), (1, 1, 1, 1), (1, 1))),
    ((12, 5, 3, 3), ConvCase((2, 2), (1, 1, 1, 1), (1, 1))),
    ((12, 5, 1, 1), ConvCase((2, 2), (0, 0, 0, 0), (1, 1))),
]


def guarded_pages() -> bytearray | mmap.mmap:
    """Memory between two inaccessible pages."""
    memory = mmap.mmap(-1, (PAGES + 2) * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for page in (address, address + (PAGES + 1) * mmap.PAGESIZE):
        if protect(page, mmap.PAGESIZE, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect failed")
    return memory


def placements(memory: mmap.mmap | None, X: Floats) -> Iterator[Floats]:
    """Copies of ``X`` that begin after the first guard page, and end before the last.

    ``memory`` is none for an emulated processor, whose inputs lie in those places in turns anyway.
    """
    if memory is None:
        yield from (X, X)
        return
    usable = PAGES * mmap.PAGESIZE
    for start in (0, usable - X.nbytes):
        copy = np.frombuffer(memory, np.float32, X.size, mmap.PAGESIZE + start).reshape(X.shape)
        copy[...] = X
        yield copy


def main(isa: str) -> None:
    """Compares each run with the same input elsewhere."""
    memory = None if "@" in isa else guarded_pages()
    rng = np.random.default_rng(0)
    for group_shape in GROUP_SHAPES:
        for K, N in itertools.product([16, 21, 67], [1, 2, 3, 7, 8, 9, 25]):
            kernel = gemm_kernel(sparse_weights(rng, 20, K, group_shape, 0.9), group_shape, isa)
            X = rng.standard_normal((N, K)).astype(np.float32)
            expected = kernel.run(X)
            for copy in placements(memory, X):
                np.testing.assert_array_equal(kernel.run(copy), expected)
        for (shape, case), spatial in itertools.product(CONVS, [(5, 5), (7, 7), (3, 14), (16, 17)]):
            W = sparse_weights(rng, shape[0], int(np.prod(shape[1:])), group_shape, 0.9).reshape(shape)
            kernel = conv_kernel(W, group_shape, case, isa)
            X = rng.standard_normal((2, shape[1], *spatial)).astype(np.float32)
            expected = kernel.run(X)
            for copy in placements(memory, X):
                np.testing.assert_array_equal(kernel.run(copy), expected)
    for spatial in [(1, 1), (5, 5), (3, 14), (23, 23)]:
        layer = lrn((1, 6, *spatial))
        kernel = instruction_sets.Lrn(layer.begin, layer.end, layer.bias, layer.alpha, layer.beta, isa=isa)
        X = rng.standard_normal(layer.x_shape).astype(np.float32)
        expected = kernel.run(X)
        for copy in placements(memory, X):
            np.testing.assert_array_equal(kernel.run(copy), expected)


if __name__ == "__main__":
    main(sys.argv[1])
