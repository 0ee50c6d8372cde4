"""What a run takes of its store: a network for its scans and regions."""

import dataclasses
from types import SimpleNamespace

import pytest

from models import LossConfig
from ray_jobs.settings.input_check import fit_to_store
from ray_jobs.settings.presets import preset
from storage.labels.tasks import TASKS, Task


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_network_has_an_output_for_each_region_or_for_each_label(task: Task) -> None:
    store = SimpleNamespace(uri="store", task=task, settings=SimpleNamespace(modalities=task.scans))
    regional = preset("demo")
    model = dataclasses.replace(regional.model, head="labels")
    labelled = dataclasses.replace(regional, model=model, loss=LossConfig(voxel="ce"))
    of_regions, of_labels = (fit_to_store(config, store).model for config in (regional, labelled))  # type: ignore[arg-type]
    assert of_regions.modalities == of_labels.modalities == len(task.scans)
    assert of_regions.regions == of_regions.outputs == of_labels.regions == len(task.regions)
    assert of_regions.region_labels is None  # as in the identity of any run before
    assert of_labels.outputs == len({label for region in task.regions for label in region.labels})
    nest = all(
        set(inner.labels) < set(outer.labels) for outer, inner in zip(task.regions, task.regions[1:], strict=False)
    )
    assert (of_labels.region_labels is None) == nest
