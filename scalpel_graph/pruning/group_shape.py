"""Group shapes as people write them."""

import re

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape


def parse_group_shape(text: str) -> GroupShape:
    """``(4, 1)`` from ``4x1`` or ``4×1``: outputs × inputs of one group.

    Raises:
        InputError: it is not two positive whole numbers.
    """
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise InputError(f"group shape must be two positive numbers such as 4x1, got {text!r}")
    return int(match[1]), int(match[2])
