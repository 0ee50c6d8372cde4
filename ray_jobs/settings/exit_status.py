"""How a command ends: 2 and one line for what the user can mend, 3 where cases were refused, 130 after Ctrl-C.

Imports nothing heavy.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

from storage import InputError

USER_ERROR = 2
REFUSED = 3  # some cases, named; the others are done
INTERRUPTED = 130
PIPE_CLOSED = 141


class StoppedBySignalError(Exception):
    """A signal cut the command off; `status` is what it ends with, `remedy` says how it goes on."""

    def __init__(self, status: int, remedy: str = "the same command goes on from the last checkpoint") -> None:
        super().__init__(f"stopped by signal {status - 128}")
        self.status, self.remedy = status, remedy


def run_command(main: Callable[[Sequence[str]], int]) -> int:
    """Return the exit status of `main`: 2 after an InputError, which is printed as one line; 128 + signal after one.

    The packages of the extra [train], Ray among them, may be missing: that is the user's to mend, too.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # whose letters may not be those of a path: stderr writes \xe9 then
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()  # what nobody reads any more is said here, and not as Python ends
        return status
    except BaseException as error:
        # C code that a signal finds waiting, as Ray's, raises a SystemError over what the signal's handler raised.
        for cause in _causes(error):
            if isinstance(cause, StoppedBySignalError):
                print(f"cut off; {cause.remedy}", file=sys.stderr)
                return cause.status
            if isinstance(cause, KeyboardInterrupt):
                print("interrupted", file=sys.stderr)
                return INTERRUPTED
        if isinstance(error, ModuleNotFoundError) and error.name and find_spec(error.name.split(".")[0]) is None:
            error = InputError(
                f"wanted the packages of [train], Ray among them, {error.name.split('.')[0]} is not installed here; in "
                'the project\'s folder type pip install --constraint constraints.txt --editable ".[train]"'
            )
        if isinstance(error, BrokenPipeError):  # of `| head`, which has read what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        if isinstance(error, OSError) and error.filename is not None:
            error = InputError(f"cannot use {error.filename}: {error.strerror}; name another place, or mend this one")
        if isinstance(error, InputError):
            print(f"error: {error}", file=sys.stderr)
            return USER_ERROR
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and what it was raised over."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
