"""Group shapes as people write them."""

import re
from typing import Protocol

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape


class GroupedRows(Protocol):
    """A weight matrix whose rows are the outputs of a layer, which may be a grouped Conv."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(M, K)``."""

    @property
    def group(self) -> int:
        """Number of groups of a Conv; 1 for others."""


def parse_group_shape(text: str) -> GroupShape:
    """``(4, 1)`` from ``4x1`` or ``4×1``: outputs × inputs of one group.

    Raises:
        InputError: it is not two positive whole numbers.
    """
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise InputError(f"group shape must be two positive numbers such as 4x1, got {text!r}")
    return int(match[1]), int(match[2])


def why_straddles(layer: GroupedRows, group_shape: GroupShape) -> str:
    """Why a layer cannot be cut into groups of a shape; empty if it can.

    A row block never straddles two groups of a Conv.
    """
    channels = layer.shape[0] // layer.group
    if layer.group > 1 and channels % group_shape[0]:
        return f"blocks of {group_shape[0]} rows do not divide the {channels} channels of a group"
    return ""
