"""Where the commands start: light, so that Ctrl-C is quiet while libraries are imported."""

import signal
from importlib import import_module


def opt() -> int:
    """``scalpel-opt``."""
    return _main("scalpel_graph.cli.opt")


def prune() -> int:
    """``scalpel-prune``."""
    return _main("scalpel_graph.cli.prune")


def bench() -> int:
    """``scalpel-bench``."""
    return _main("scalpel_graph.cli.bench")


def calibrate() -> int:
    """``scalpel-calibrate``."""
    return _main("scalpel_graph.cli.calibrate")


def _main(module: str) -> int:
    # An interrupted import leaves a traceback from deep inside numpy; without a handler, nothing.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = import_module(module).main
    signal.signal(signal.SIGINT, handler)
    return int(main())
