"""How pruning tells what it is doing."""

import contextlib
from collections.abc import Callable, Iterator


class Progress:
    """Tells nobody; commands have one that does."""

    def say(self, step: str) -> None:
        """Is told what is being done, in a few words."""

    @contextlib.contextmanager
    def counted(self, what: str, total: int) -> Iterator[Callable[[str], None]]:
        """Gives a function to call with the name of each of ``total`` things that is done."""
        yield lambda name: None
