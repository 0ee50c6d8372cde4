"""Items in threads: side by side, each with its own error; what is no item's fault ends them all."""

import threading

import pytest

from ray_jobs.on_ray.outcome import in_threads
from storage import InputError


def test_items_are_done_side_by_side_and_an_items_error_is_its_own() -> None:
    together = threading.Barrier(3, timeout=60)  # passed where three are at work at once
    made: list[int] = []

    def work(number: int) -> int:
        together.wait()
        if number == 4:
            raise InputError("four is odd")
        return 2 * number

    outcomes = {each.item: each for each in in_threads(lambda: made.append(1) or work, range(6), threads=3)}
    assert {item: each.result for item, each in outcomes.items()} == {0: 0, 1: 2, 2: 4, 3: 6, 4: None, 5: 10}
    assert outcomes[4].error == "four is odd" and made == [1]


def test_nothing_is_made_for_no_items_and_a_defect_ends_all() -> None:
    assert list(in_threads(lambda: pytest.fail("made"), [], threads=2)) == []

    def defect(number: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda: defect, range(100), threads=2))
