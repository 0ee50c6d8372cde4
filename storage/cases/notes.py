"""What was mended in the files of cases, a line for each kind and not for each case."""

from collections.abc import Mapping, Sequence

# Notes of a case are "KIND: DETAILS" where files were mended.
_MARK = ": "


def summarise_notes(notes_by_case: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """For each kind of note how many cases have it, and one of them in full."""
    found: dict[str, list[tuple[str, str]]] = {}
    for case_id, notes in notes_by_case.items():
        for note in notes:
            kind, mark, details = note.partition(_MARK)
            if mark:
                found.setdefault(kind, []).append((case_id, details))
    return tuple(
        f"{kind}: {count} {'case,' if count == 1 else 'cases, such as'} {cases[0][0]} ({cases[0][1]})"
        for kind, cases in found.items()
        for count in [len({case_id for case_id, _ in cases})]
    )
