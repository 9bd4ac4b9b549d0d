"""Naming layers: patterns as in a shell, and what to say of one that nothing matches."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from scalpel_graph.errors import InputError


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of the patterns, or matches one (``*``, ``?``, ``[ab]``)."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def check_pattern(pattern: str, names: Sequence[str], what: str = "Conv, Gemm or MatMul") -> None:
    """Makes sure that a pattern is about something.

    Args:
        pattern: of a name.
        names: of what there is.
        what: that is called in the message.

    Raises:
        InputError: no layer has such a name; says which is close.
    """
    if any(matches(name, [pattern]) for name in names):
        return
    if hint := did_you_mean(pattern, names):
        pass
    elif names:
        hint = f"there are {len(names)}, such as {', '.join(names[:3])}"
    else:
        hint = "the model has none"
    raise InputError(f"no {what} is called {pattern!r}: {hint}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean 'conv1'?`` for a name that is close to a known one; else empty."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else ""
