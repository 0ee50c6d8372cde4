"""name_mapping.csv as spreadsheets leave it: read as far as it can be, and what could not be is named."""

from pathlib import Path

import pytest

from storage import find_cases
from storage.scans.listing import list_folder
from storage.scans.name_mapping import read_grades

ROWS = [
    ["Grade", "BraTS_2019_subject_ID", "BraTS_2020_subject_ID", "Comment"],
    ["HGG", "BraTS19_X_1", "BraTS20_Training_001", "Zürich"],
    ["LGG", "NA", "BraTS20_Training_002", ""],
]
WANTED = {"BraTS19_X_1": "HGG", "BraTS20_Training_001": "HGG", "BraTS20_Training_002": "LGG"}


def table(separator: str = ",", end: str = "\n", quote: str = "") -> str:
    return "".join(separator.join(f"{quote}{cell}{quote}" for cell in row) + end for row in ROWS)


def read(folder: Path, content: bytes, name: str = "name_mapping.csv") -> tuple[dict[str, str], tuple[str, ...]]:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return read_grades(list_folder(folder).top)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (table().encode(), ()),
        (table(end="\r\n").encode(), ()),
        (table(end="\r").encode(), ()),
        (table().encode("utf-8-sig"), ()),
        (table(separator=";").encode(), ()),
        (table(separator="\t", quote='"').encode(), ()),
        (b"sep=;\r\n" + table(separator=";").encode(), ()),
        (table().encode("cp1252"), ("read as Windows-1252",)),
        (table().encode("utf-16"), ("read as UTF-16",)),
        (table().encode("utf-16-le"), ("read as UTF-16",)),
        (table().encode("utf-16-be"), ("read as UTF-16",)),
        ((table() + "HGG,a,b,c,d,e\n").encode(), ("row 4 with more or fewer cells",)),
        ((table() + "HGG,NA,\n").encode(), ("row 4 with more or fewer cells",)),
        (
            (table() + "GBM,a,b,c\n\n\nIV,a,b,c\n").encode(),
            ("2 rows, from row 4 on, with another grade than HGG or LGG",),
        ),
        ((table() + 'LGG,"a,b,c\nHGG,d,e,f\n').encode(), ("row 4 goes on over 2 lines", "row 4 with more or fewer")),
        ((table() + 'LGG,"' + "x" * 140_000).encode(), ("read up to row 3 (field larger",)),
    ],
)
def test_grades_are_read_however_the_table_was_saved(tmp_path: Path, content: bytes, said: tuple[str, ...]) -> None:
    grades, notices = read(tmp_path, content)
    assert {case_id: grades.get(case_id) for case_id in WANTED} == WANTED
    assert len(notices) == len(said)
    for notice, words in zip(notices, said, strict=True):
        assert words in notice
        assert str(tmp_path / "name_mapping.csv") in notice


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "wanted a column Grade in its first row, found nothing"),
        (b"a,b\n1,2\n", "wanted a column Grade in its first row, found a, b"),
        (b"Grade\nHGG\n", "no row has an id and a grade"),
        (bytes(range(256)) * 4, "no grades read"),
    ],
)
def test_a_table_without_grades_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    grades, notices = read(tmp_path, content)
    assert grades == {}
    assert words in notices[-1]


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "name_mapping.csv").symlink_to(tmp_path / "gone")
    grades, (notice,) = read_grades(list_folder(tmp_path).top)
    assert grades == {}
    assert "no grades read, it cannot be read" in notice


def test_a_case_has_its_grade_and_the_search_its_notices(tmp_path: Path) -> None:
    case = tmp_path / "MICCAI" / "BraTS20_Training_002"
    case.mkdir(parents=True)
    for role in ("flair", "t1", "t1ce", "t2"):
        (case / f"BraTS20_Training_002_{role}.nii").touch()
    read(tmp_path, table().encode("cp1252"), "MICCAI/name_mapping.csv")
    search = find_cases(tmp_path)
    assert [each.grade for each in search.cases] == ["LGG"]
    assert len(search.notices) == 1
