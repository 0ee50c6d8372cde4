"""Grades from name_mapping.csv, which lies beside the cases of 2018 to 2020: read as far as it can be, never fatal.

Spreadsheets save it in other encodings and with other separators; what is not read for sure is said.
"""

import csv

from storage.scans.listing import Folder, ScanFile, UnreadableError

GRADES = ("HGG", "LGG")
_SEPARATORS = ",;\t|"
_MISSING = ("", "NA", "N/A", "NAN")


def read_grades(top: Folder) -> tuple[dict[str, str], tuple[str, ...]]:
    """HGG or LGG by case id, from every name_mapping*.csv at most three folders deep, and notices."""
    grades: dict[str, str] = {}
    notices: list[str] = []
    for folder in top.walk(depth=2):
        for name, file in folder.files.items():
            if name.lower().startswith("name_mapping") and name.lower().endswith(".csv"):
                found, said = _read_one(file)
                grades |= found
                notices += [f"{file}: {each}" for each in said]
    return grades, tuple(notices)


def _read_one(file: ScanFile) -> tuple[dict[str, str], list[str]]:
    try:
        text, encoding = _decode(file.read_bytes())
    except (OSError, UnreadableError) as error:
        return {}, [f"no grades read, it cannot be read ({error})"]
    said = [] if encoding == "UTF-8" else [f"not UTF-8, read as {encoding}"]
    rows, objections = _split(text)
    said += objections
    header = [cell.strip() for cell in rows[0]] if rows else []
    column = next((index for index, name in enumerate(header) if name.lower() == "grade"), None)
    if column is None:
        found = ", ".join(header) or "nothing"
        return {}, [*said, f"no grades read: wanted a column Grade in its first row, found {found[:200]}"]
    grades: dict[str, str] = {}
    ragged, unknown = [], []
    for number, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row]
        if len(cells) < len(header) or any(cells[len(header) :]):
            ragged.append(number)
        grade = cells[column].upper() if column < len(cells) else ""
        if grade in GRADES:
            # Each year has a column of its own for the case's id; what is no id matches no case.
            ids = (cell for cell in cells[: len(header)] if cell.upper() not in (grade, *_MISSING))
            grades |= dict.fromkeys(ids, grade)
        elif grade not in _MISSING:
            unknown.append(number)
    if ragged:
        said.append(f"{_rows(ragged)} with more or fewer cells than the first row, read as far as those go")
    if unknown:
        said.append(f"{_rows(unknown)} with another grade than {' or '.join(GRADES)}, left out")
    if not grades:
        said.append("no grades read: no row has an id and a grade")
    return grades, said


def _decode(raw: bytes) -> tuple[str, str]:
    """The text and what it was read as. Ids are ASCII, so that any one-byte encoding reads them."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace"), "UTF-16"
    if b"\0" in raw[:200]:  # UTF-16 without its mark: every other byte of plain text is 0
        return raw.decode("utf-16-be" if raw[0] == 0 else "utf-16-le", errors="replace"), "UTF-16"
    try:
        return raw.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace"), "Windows-1252"


def _split(text: str) -> tuple[list[list[str]], list[str]]:
    """Rows of cells without empty rows, and what stopped the reading or swallowed rows, if anything did."""
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].lower().startswith("sep="):  # Excel's own first line
        del lines[0]
    separator = max(_SEPARATORS, key=lines[0].count) if lines else ","
    rows: list[list[str]] = []
    said: list[str] = []
    reader = csv.reader(lines, delimiter=separator)
    before = 0
    try:
        for row in reader:
            rows.append(row)
            if reader.line_num > before + 1:
                count = reader.line_num - before
                said.append(f"row {len(rows)} goes on over {count} lines, up to the next quotation mark")
            before = reader.line_num
    except csv.Error as error:
        said.append(f"read up to row {len(rows)} ({error})")
    return rows, said


def _rows(numbers: list[int]) -> str:
    return f"row {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} rows, from row {numbers[0]} on,"
