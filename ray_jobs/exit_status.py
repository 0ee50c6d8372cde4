"""How a command ends: 2 and one line for what the user can mend, 130 after Ctrl-C. Imports nothing heavy."""

import sys
from collections.abc import Callable, Sequence

from storage import InputError

USER_ERROR = 2
INTERRUPTED = 130


def run_command(main: Callable[[Sequence[str]], int]) -> int:
    """Return the exit status of `main`: 2 after an InputError, which is printed as one line, 130 after Ctrl-C."""
    try:
        return main(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
