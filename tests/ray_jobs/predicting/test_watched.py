"""Work in a watched process: bad items are named, what hangs, grows or dies costs no other item anything."""

from pathlib import Path
from typing import Any

import pytest

from ray_jobs.predicting.watched import STARTS, WatchedWork

pytestmark = pytest.mark.processes


@pytest.fixture
def make_job(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from watched_jobs import MakeJob

    return MakeJob


def test_bad_items_are_named_by_a_process_that_goes_on(make_job: Any, tmp_path: Path) -> None:
    with WatchedWork(make_job(folder=tmp_path), seconds=120, gib=16) as work:
        (first, process), _ = work.do("one")
        assert work.do("is bad") == (None, "it is bad; mend it")
        assert work.do("has a mistake") == (None, "ZeroDivisionError: division by zero")
        assert (first, work.do("two")) == ("ONE", (("TWO", process), None))
    assert (tmp_path / "made").read_text() == "x"
    assert not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize(
    ("item", "limits", "why"),
    [
        ("hangs", {"seconds": 1, "gib": 16}, "took more than 1 s"),
        ("grows", {"seconds": 300, "gib": 0.5}, "took more than 0.5 GiB of memory"),
        ("dies", {"seconds": 300, "gib": 16}, "its process died (SIGKILL)"),
    ],
)
def test_what_ends_its_process_is_named_and_the_next_has_a_new_one(
    item: str, limits: dict[str, float], why: str, make_job: Any, tmp_path: Path
) -> None:
    with WatchedWork(make_job(folder=tmp_path), **limits) as work:
        assert work.do(item) == (None, why)
        (done, _), error = work.do("next")
        assert (done, error) == ("NEXT", None)
    assert (tmp_path / "made").read_text() == "xx"


def test_where_nothing_can_be_loaded_that_is_said_of_every_item_and_not_tried_for_ever(
    make_job: Any, tmp_path: Path
) -> None:
    with WatchedWork(make_job(folder=tmp_path, unable="the weights are cut short"), seconds=120, gib=16) as work:
        for item in ("one", "two"):
            assert work.do(item) == (None, "nothing can be done here: the weights are cut short")
    assert (tmp_path / "made").read_text() == "x" * STARTS
