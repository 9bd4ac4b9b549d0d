"""The errors a person can meet, each with the exit code of the command that met it."""


class ScalpelError(Exception):
    """Base of every error that is shown to a person as one line: what is wrong, where, what to do."""

    exit_code = 2


class InputError(ScalpelError):
    """The input file, an option or the output path is unusable (exit code 2)."""


class CheckError(ScalpelError):
    """The result failed its own check and was not written (exit code 3)."""

    exit_code = 3


class GroupCsrError(ScalpelError, ValueError):
    """Group-CSR arrays that contradict each other or the shape they are said to encode."""


class GraphError(ScalpelError):
    """A model that the graph layer cannot represent without losing something; it is left as it is."""


class Unverifiable(ScalpelError):  # noqa: N818 - it is no error of the model's
    """ONNX Runtime cannot say what the original computes, so nothing can be checked against it."""
