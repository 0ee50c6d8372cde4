"""What a run says before it trains."""

import dataclasses
from unittest.mock import Mock

import pytest

from ray_jobs.training.planning import find_notices
from storage import TASKS, CohortStore, Splits


def test_regions_that_scores_would_be_empty_of_are_named_before_training(phantom_store: CohortStore) -> None:
    some, none = {"WT": 9, "TC": 7, "ET": 3}, {"WT": 9, "TC": 7, "ET": 0}
    infos = [
        dataclasses.replace(phantom_store.infos()[0], case_id=case_id, region_voxels=voxels)
        for case_id, voxels in {"a": some, "b": none, "c": some}.items()
    ]
    store = Mock(task=TASKS["gli-2021"], infos=lambda: infos)
    (notice,) = find_notices(store, Splits(train=("a",), validation=("b",), test=("c",)))
    assert notice.startswith("ET never occurs in the validation cases") and "scored 1.000" in notice
    store.infos = lambda: [dataclasses.replace(info, region_voxels=none) for info in infos]
    (notice,) = find_notices(store, Splits(train=("a",), validation=("b",), test=("c",)))
    assert notice.startswith("ET never occurs in the whole cohort (3 labelled cases)")


@pytest.mark.parametrize(
    ("validation", "test", "said"),
    [
        (("b",), ("c",), []),
        (("b",), (), ["no case tests: all scores are of cases on which epoch and thresholds are chosen"]),
        ((), ("c",), ["no case validates: the last epoch is kept"]),
        ((), (), ["no case validates: the last epoch is kept", "no case tests either: how good the network is"]),
    ],
)
def test_it_is_said_what_will_not_be_known(
    phantom_store: CohortStore, validation: tuple[str, ...], test: tuple[str, ...], said: list[str]
) -> None:
    voxels = {"WT": 9, "TC": 7, "ET": 3}
    infos = [dataclasses.replace(phantom_store.infos()[0], case_id=name, region_voxels=voxels) for name in "abc"]
    store = Mock(task=TASKS["gli-2021"], infos=lambda: infos)
    found = find_notices(store, Splits(train=("a",), validation=validation, test=test))
    assert [notice[: len(start)] for notice, start in zip(found, said, strict=True)] == said
