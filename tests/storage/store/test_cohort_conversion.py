"""What a conversion does again and what it leaves alone; and that no moment of it leaves half a case."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import (
    CohortStore,
    CorruptStoreError,
    InputError,
    convert_case,
    create_store,
    find_cases,
    open_store,
)
from storage.labels.tasks import TASKS
from storage.store.cohort_conversion import convert_or_refuse, finish_conversion, plan_conversion
from storage.store.objects import Objects
from storage.store.verify import verify_case


def test_a_second_run_has_nothing_to_do(small_source: Path, small_store: CohortStore) -> None:
    plan = plan_conversion(find_cases(small_source).cases, small_store.committed_cases())
    assert plan.todo == plan.changed == ()
    assert plan.skipped == small_store.case_ids


def test_a_source_that_changed_is_noticed(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    paths = case_writer().write(tmp_path / "in", "A")
    case_writer().write(tmp_path / "in", "B", seed=1)
    store = convert_folder(tmp_path / "in")
    paths["t1"].touch()  # a new time alone is no change
    assert plan_conversion(find_cases(tmp_path / "in").cases, store.committed_cases()).skipped == ("A", "B")
    case_writer().write(tmp_path / "in", "A", seed=7)
    plan = plan_conversion(find_cases(tmp_path / "in").cases, store.committed_cases())
    assert (plan.changed, plan.skipped) == (("A",), ("B",))
    before = store.read_case("A").image_MDHW
    convert_case(plan.todo[0], store)
    store.rebuild_index()
    after = store.read_case("A").image_MDHW
    assert before.shape != after.shape or (before != after).any()


def test_a_label_that_is_added_or_taken_away_is_a_change(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    paths = case_writer().write(tmp_path / "in", "A")
    store = convert_folder(tmp_path / "in")
    paths["label"].unlink()
    assert plan_conversion(find_cases(tmp_path / "in").cases, store.committed_cases()).changed == ("A",)


def test_the_same_voxels_under_two_ids_are_refused(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore]
) -> None:
    writer = case_writer()
    writer.write(tmp_path / "in", "B", seed=3)
    store = convert_folder(tmp_path / "in")
    writer.write(tmp_path / "in", "A", seed=3)
    writer.write(tmp_path / "in", "C", seed=4)
    earlier = store.committed_cases()
    for case in find_cases(tmp_path / "in").cases:
        assert not hasattr(convert_or_refuse(case, store), "finding")
    (refusal,) = finish_conversion(store, earlier)
    assert (refusal.case_id, refusal.finding) == ("A", "the same voxels as case B")
    assert open_store(store.uri).case_ids == ("B", "C")
    assert not (Path(store.uri) / "cases" / "A").exists()


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the code catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Die in place of the `moment`-th change to the store."""
    left = iter(range(moment))

    def guard(change: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return change(*args, **kwargs)

        return guarded

    for name in ("put", "delete", "delete_folder"):
        monkeypatch.setattr(Objects, name, guard(getattr(Objects, name)))


# One delete, one of the folder, two objects for each of three arrays, and the record.
CHANGES = 9


@pytest.mark.parametrize("moment", range(CHANGES))
def test_killed_at_any_moment_a_case_is_whole_or_absent(
    tmp_path: Path,
    case_writer: type[Any],
    convert_folder: Callable[..., CohortStore],
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
) -> None:
    case_writer().write(tmp_path / "in", "A", seed=1)
    store = convert_folder(tmp_path / "in")
    old = store.read_case("A").image_MDHW
    case_writer().write(tmp_path / "in", "A", seed=2)
    (case,) = find_cases(tmp_path / "in").cases
    with monkeypatch.context() as patch:
        kill_at(patch, moment)
        with pytest.raises(Killed):
            convert_case(case, store)
    survivor = open_store(store.uri)  # what a reader sees while the index still lists the old case
    try:
        assert (survivor.read_case("A").image_MDHW == old).all()
    except CorruptStoreError:
        assert moment > 0
    assert (survivor.committed_cases() == {}) == (moment > 0)
    assert (Path(store.uri) / "cases" / "A" / "zarr.json").exists() == (moment == 0)  # no record, no group
    survivor.rebuild_index()
    assert survivor.case_ids == (("A",) if moment == 0 else ())
    convert_case(case, survivor)
    survivor.rebuild_index()
    assert verify_case(survivor, "A") == ()
    assert survivor.read_case("A").image_MDHW.shape[1:] == survivor.info("A").shape


def test_the_kill_test_covers_every_change(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one moment more the conversion gets through, so the moments above are all there are."""
    case_writer().write(tmp_path / "in", "A")
    store = convert_folder(tmp_path / "in")
    kill_at(monkeypatch, CHANGES)
    convert_case(find_cases(tmp_path / "in").cases[0], store)


def test_verify_finds_what_reading_does_not_touch(
    small_source: Path, small_store: CohortStore, flip_byte: Callable[[Path, int], None]
) -> None:
    a, b, c, d = small_store.case_ids
    root = Path(small_store.uri) / "cases"
    flip_byte(root / a / "zarr.json", 50)
    flip_byte(root / b / "foreground" / "c" / "0" / "0" / "0", 30)
    (case,) = (case for case in find_cases(small_source).cases if case.case_id == c)
    assert "its record differs" in verify_case(small_store, a)[0]
    assert f"case {b}, array foreground, chunk (0, 0, 0)" in verify_case(small_store, b)[0]
    assert "is not the file that was converted" in verify_case(small_store, c, {"t1": case.files["t2"]})[0]
    assert verify_case(small_store, c, case.files) == ()
    assert verify_case(small_store, d) == ()


def test_a_damaged_record_is_converted_again(
    small_source: Path, small_store: CohortStore, flip_byte: Callable[[Path, int], None]
) -> None:
    case_id = small_store.case_ids[2]
    flip_byte(Path(small_store.uri) / "cases" / case_id / "zarr.json", 50)
    plan = plan_conversion(find_cases(small_source).cases, small_store.committed_cases())
    assert [case.case_id for case in plan.todo] == [case_id]


def test_a_damaged_index_is_made_anew(small_store: CohortStore, flip_byte: Callable[[Path, int], None]) -> None:
    flip_byte(Path(small_store.uri) / "zarr.json", 99)
    with pytest.raises(CorruptStoreError, match=r"run convert\.py again|not a Zarr v3 group"):
        open_store(small_store.uri)
    with pytest.raises(InputError, match="give the flags it was made with"):
        create_store(small_store.uri, task=TASKS["ped-2024"], repair=True)
    repaired = create_store(small_store.uri, repair=True)
    repaired.rebuild_index()
    assert (repaired.case_ids, repaired.digest) == (small_store.case_ids, small_store.digest)


@pytest.mark.parametrize("case_id", ["with space", "Fall-Nr.7", "пациент", "50%#1"])
def test_case_ids_are_any_folder_names(
    tmp_path: Path, case_writer: type[Any], convert_folder: Callable[..., CohortStore], case_id: str
) -> None:
    case_writer().write(tmp_path / "in", case_id)
    store = convert_folder(tmp_path / "in")
    assert open_store(store.uri).case_ids == (case_id,)
    assert verify_case(store, case_id) == ()
    assert store.committed_cases().keys() == {case_id}
    convert_case(find_cases(tmp_path / "in").cases[0], store)
    assert verify_case(store, case_id) == ()
