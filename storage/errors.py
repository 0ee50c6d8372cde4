"""Errors that a user can mend: what was wanted, what was found, what to do."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line that says what was wanted, what was found and what to do; commands print it without a
    stack trace and exit with status 2.
    """
