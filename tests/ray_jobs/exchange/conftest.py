"""A checkpoint whose decision uses every rule, and what we ourselves make of a case with it."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import RegionRules, segment_regions
from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.evaluation.decision_file import decode_decision
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.predicting.predict_config import InferenceConfig
from ray_jobs.predicting.prediction import CasePredictor, PredictionPlan
from ray_jobs.predicting.reading import FolderInput
from storage import MODALITIES, Case
from storage.labels.tasks import GLI_2021_TASK

REGIONS = GLI_2021_TASK.region_names
# Each rule changes something of what the few trained steps predict.
DECISION = {
    "thresholds": dict(zip(REGIONS, (0.52, 0.5, 0.47), strict=True)),
    "smallest_mm3": dict(zip(REGIONS, (400.0, 0.0, 90.0), strict=True)),
    "largest_tumour_only": True,
    "empty_below_mm3": dict(zip(REGIONS, (0.0, 0.0, 100.0), strict=True)),
}


@pytest.fixture(scope="session")
def checkpoint(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small network with another decision."""
    copy = tmp_path_factory.mktemp("given") / "checkpoint"
    shutil.copytree(find_checkpoint(str(trained.folder)).uri, copy)
    (copy / "decision.json").write_text(json.dumps(DECISION))
    # As files for other programs compute: where `auto` is bfloat16 other voxels lie at a threshold.
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "precision": "float32"}))
    return str(copy)


@pytest.fixture(scope="session")
def label_ourselves(checkpoint: str) -> Callable[[Case], NDArray[np.uint8]]:
    """Our own segmentation of a case, z y x in LPS, in the values of BraTS 2020."""

    def label(case: Case) -> NDArray[np.uint8]:
        decision = decode_decision(DECISION, REGIONS)
        plan = PredictionPlan(
            checkpoints=(checkpoint,),
            source=FolderInput(cases={case.case_id: case}, modalities=MODALITIES, task=GLI_2021_TASK),
            rules=RegionRules(labels=tuple(region.labels for region in GLI_2021_TASK.regions), **vars(decision)),
            inference=InferenceConfig(),
            probabilities=False,
        )
        predictor = CasePredictor(plan, [open_trained(checkpoint, torch.device("cpu"))], torch.device("cpu"))
        held = plan.source.read(case.case_id)
        with torch.inference_mode():
            probabilities_RDHW = predictor.probabilities(held)
        label_DHW = segment_regions(probabilities_RDHW, plan.rules, spacing_mm=held.case.spacing)
        return GLI_2021_TASK.convention.to_source(label_DHW)

    return label
