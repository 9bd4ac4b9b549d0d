"""What all commands share: one-line errors, exit codes, consoles, whole-or-nothing text files."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scalpel_graph.errors import InputError, ScalpelError

#: Exit code of a command that the user interrupted, as shells count it (128 + SIGINT).
INTERRUPTED = 130
_TERMINATED = 143
_INTERNAL_ERROR = 3
_UNUSABLE = 2

#: Columns of a table that goes to a file or a pipe.
_FILE_WIDTH = 120


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line about an unusable command line."""
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(_UNUSABLE)


def run(command: Callable[[Sequence[str]], int], prog: str, arguments: Sequence[str] | None) -> int:
    """Runs a command; whatever goes wrong becomes one line on stderr and an exit code.

    Args:
        command: gets the arguments and returns the exit code.
        prog: its name, for messages.
        arguments: the command line without the name; None takes the process's own.

    Returns:
        0, or what went wrong: 2 the input or an option is unusable; 3 the result failed its own check, or the
        program has a bug; 130 interrupted. A traceback is printed only for a bug and with ``-v``.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with _termination_unwinds():
        try:
            return command(arguments)
        except ScalpelError as error:
            _complain(prog, str(error))
            return error.exit_code
        except KeyboardInterrupt:
            _complain(prog, "interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of our output left. Python flushes stdout once more at exit, which must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except MemoryError:
            _complain(prog, "not enough memory for this model")
            return _UNUSABLE
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _complain(prog, f"{place}{error.strerror or error}")
            return _UNUSABLE
        except Exception as error:
            if "-v" in arguments or "--verbose" in arguments:
                traceback.print_exc()
            _complain(
                prog,
                f"unexpected {type(error).__name__}: {error or 'no message'}; a bug, please report it; "
                "-v shows where it happened",
            )
            return _INTERNAL_ERROR


class _Output(Console):
    """A console that reports a reader who left as Python does."""

    def on_broken_pipe(self) -> None:
        """Raises `BrokenPipeError`, where rich would end the program with exit code 1."""
        raise BrokenPipeError


def output_console(quiet: bool = False) -> Console:
    """The console for results: stdout. Off a terminal its tables are wide, so that names stay whole."""
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    return _Output(quiet=quiet, width=width, highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is being done; nothing where nobody is watching.

    Gives a function that takes what is being done now, in a few words.
    """
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield lambda step: None
        return
    with console.status("reading") as status:
        yield lambda step: status.update(escape(step))


@contextlib.contextmanager
def counted(what: str, total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on the terminal with the time that is left; nothing where nobody is watching.

    Gives a function to call after each of ``total`` steps. The bar moves only then, so that it takes nothing
    from what is measured.
    """
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(escape(what), total=total)

        def advance() -> None:
            bar.advance(task)
            bar.refresh()

        yield advance


@contextlib.contextmanager
def still(text: str, quiet: bool) -> Iterator[None]:
    """A line on the terminal that does not move, so that it takes nothing from what is measured meanwhile."""
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield
        return
    console.print(text, end="\r", markup=False)
    try:
        yield
    finally:
        console.print(" " * len(text), end="\r")


def positive(text: str) -> int:
    """Parses an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def check_folder(path: Path) -> None:
    """Finds out before the work whether a file can be written.

    Raises:
        InputError: it is a folder, or its folder is missing or not writable.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"{path}: folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"{path} is not writable")


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all; text as UTF-8.

    Raises:
        InputError: it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                mask = os.umask(0)
                os.umask(mask)
                os.fchmod(file.fileno(), 0o666 & ~mask)  # mkstemp made it private
                file.write(content.encode() if isinstance(content, str) else content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _complain(prog: str, message: str) -> None:
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)


@contextlib.contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Lets SIGTERM end the program through its ``finally`` clauses, so that no temporary file stays."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(_TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:
        # Not in the main thread: the program that calls us has its own handling.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
