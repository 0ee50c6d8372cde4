"""The root's file: one canonical spelling, out of which records are cut as they are; what is parsed, counted."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import CaseInfo, CohortStore, open_store
from storage.cases.info import canonical_json
from storage.store.index import ROOT_KEY

# Ids and names that look like what surrounds a record.
ODD = ['a","b', 'x":{"affine":[[', "back\\slash", '"', "Größe", '},"digest":"', "z"]


@pytest.fixture
def list_cases(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> Callable[..., CohortStore]:
    """A store whose root lists a case under many ids."""
    case_writer().write(tmp_path / "in", "A")
    store = convert_folder(tmp_path / "in")
    (info,) = store.infos()

    def listed(case_ids: list[str], **other: Any) -> CohortStore:
        store.rebuild_index({name: dataclasses.replace(info, case_id=name, **other) for name in case_ids})
        return open_store(store.uri)

    return listed


def test_the_root_is_the_canonical_spelling_of_what_it_says(list_cases: Callable[..., CohortStore]) -> None:
    for case_ids in ([], ["A"], [f"C{number:02d}" for number in (9, 1, 10)], ODD):
        raw = (Path(list_cases(case_ids).uri) / ROOT_KEY).read_bytes()
        document = json.loads(raw)
        assert raw == canonical_json(document)
        assert sorted(document["attributes"]["cases"]) == sorted(case_ids)


def test_records_come_back_whatever_is_written_in_them(list_cases: Callable[..., CohortStore]) -> None:
    store = list_cases(ODD, notes=tuple(ODD), subject=ODD[1], task=ODD[5], region_voxels={"affine": 3, "of": 1})
    assert store.case_ids == tuple(sorted(ODD))
    for case_id in ODD:
        info = store.info(case_id)
        assert (info.case_id, info.notes, info.subject, info.task) == (case_id, tuple(ODD), ODD[1], ODD[5])
        assert isinstance(info, CaseInfo) and info.region_voxels == {"affine": 3, "of": 1}


def test_opening_parses_no_record_and_a_look_at_one_parses_it_alone(
    list_cases: Callable[..., CohortStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    loads = json.loads

    def counted(text: bytes) -> Any:
        parsed.append(len(text))
        return loads(text)

    def bytes_parsed_to_open(cases: int) -> tuple[CohortStore, int]:
        case_ids = [f"C{number:04d}" for number in range(cases)]
        uri = list_cases(case_ids).uri
        parsed.clear()
        store = open_store(uri)
        return store, sum(parsed) - sum(len(f'"{name}"') for name in case_ids)

    monkeypatch.setattr("storage.store.index.json.loads", counted)
    _, few = bytes_parsed_to_open(1)
    store, many = bytes_parsed_to_open(300)
    assert few == many
    parsed.clear()
    store.info("C0007")
    store.info("C0007")
    assert parsed == [len(store.index.records["C0007"])]
