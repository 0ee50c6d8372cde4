"""Errors that a user can mend: what was wanted, what was found, what to do."""

from dataclasses import dataclass


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line that says what was wanted, what was found and what to do; commands print it without a
    stack trace and exit with status 2.
    """


class UnknownLabelsError(InputError):
    """What the labels mean cannot be told, or contradicts the store: `remedy` is that of a command with the flags."""

    def __init__(self, finding: str, remedy: str) -> None:
        super().__init__(finding, remedy)
        self.finding, self.remedy = finding, remedy

    def __str__(self) -> str:
        return f"{self.finding}; {self.remedy}"


class CorruptStoreError(InputError):
    """Bytes in a store (or in a cache of it) are not the bytes that were written. The message names the place."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why one case was left out while the rest went on: as text, one line with file, finding and remedy."""

    case_id: str
    file: str
    finding: str
    remedy: str

    def __str__(self) -> str:
        where = f" ({self.file})" if self.file else ""
        return f"{self.case_id}{where}: {self.finding}; {self.remedy}"


class CaseRefusedError(Exception):
    """One case cannot be converted; carries as `refusal` what the report lists."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)  # not its text: Ray tasks raise this one, and exceptions are pickled by their args
        self.refusal = refusal
