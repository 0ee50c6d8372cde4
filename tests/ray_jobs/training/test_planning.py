"""What a run says before it trains."""

import dataclasses
from unittest.mock import Mock

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
