from dataclasses import replace

import numpy as np
import pytest
import torch

from models import UNET_PRESETS, RegionScores, build_unet, choose_precision
from ray_jobs.evaluation.validation import CaseEvaluator, Evaluation, ThresholdCurves
from ray_jobs.settings.groups import ValidationConfig
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS

REGIONS = GLI_2021_TASK.region_names

PRECISION = choose_precision(torch.device("cpu"), "float32")


@pytest.fixture
def image() -> torch.Tensor:
    image = torch.randn(4, 21, 18, 33)
    image[:, :, :6] = 0.0
    image[:3, :, :, 25:] = 0.0  # one modality alone still shows the head
    return image


def make_evaluator(config: ValidationConfig) -> CaseEvaluator:
    torch.manual_seed(0)
    network = build_unet(replace(UNET_PRESETS["tiny"], stem_stride=2)).eval()
    return CaseEvaluator(network, (16, 16, 32), config, PRECISION)


@pytest.mark.parametrize("whole", ["whole", "windows"])
@torch.inference_mode()
def test_nothing_is_predicted_outside_the_head(whole: str, image: torch.Tensor) -> None:
    config = ValidationConfig(whole=whole == "whole")
    probabilities_RDHW = make_evaluator(config).probabilities(image)
    everywhere_RDHW = make_evaluator(replace(config, head_only=False)).probabilities(image)
    assert everywhere_RDHW.min() > 0
    assert (probabilities_RDHW[:, :, :6] == 0).all()
    assert torch.equal(probabilities_RDHW[:, :, 6:], everywhere_RDHW[:, :, 6:])


@torch.inference_mode()
def test_a_whole_head_has_no_background(image: torch.Tensor) -> None:
    evaluator = make_evaluator(ValidationConfig(whole=True))
    outside_M = (-0.5, -1.0, -1.5, -2.0)
    padded = torch.tensor(outside_M).reshape(4, 1, 1, 1).repeat(1, 32, 32, 48)
    padded[:, 5:26, 7:25, 7:40] = image
    probabilities_RDHW = evaluator.probabilities(image, outside_M=outside_M)
    assert probabilities_RDHW.min() > 0
    wanted = evaluator.probabilities(padded, outside_M=outside_M)[:, 5:26, 7:25, 7:40]
    torch.testing.assert_close(probabilities_RDHW, wanted)


@torch.inference_mode()
def test_a_whole_case_is_padded_to_what_the_network_wants(image: torch.Tensor) -> None:
    evaluator = make_evaluator(ValidationConfig(whole=True, head_only=False))
    padded = torch.zeros(4, 32, 32, 48)
    padded[:, 5:26, 7:25, 7:40] = image
    probabilities_RDHW = evaluator.probabilities(image)
    assert probabilities_RDHW.shape == (3, 21, 18, 33)
    torch.testing.assert_close(probabilities_RDHW, evaluator.probabilities(padded)[:, 5:26, 7:25, 7:40])


@pytest.mark.parametrize("whole", [True, False])
@torch.inference_mode()
def test_cudnn_tries_its_algorithms_where_shapes_come_back(
    whole: bool,  # noqa: FBT001
    image: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    evaluator = make_evaluator(ValidationConfig(whole=whole))
    seen = []
    evaluator.model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    evaluator.probabilities(image)
    assert set(seen) == {not whole}
    assert torch.backends.cudnn.benchmark is True


def test_the_summary_names_each_case_with_its_scores() -> None:
    curves = ThresholdCurves(
        regions=REGIONS, thresholds_T=np.zeros(1), iou_TR=np.zeros((1, 3)), dice_TR=np.zeros((1, 3))
    )
    mean = RegionScores(threshold=(0.5,) * 3, iou=(0.6, 0.5, 0.4), dice=(0.7, 0.6, 0.5), cases=1)
    evaluation = Evaluation(
        cases=1,
        regions=GLIOMA_REGIONS,
        scores=mean,
        thresholds=dict.fromkeys(REGIONS, 0.5),
        curves=curves,
        by_case={"case-1": mean},
    )
    summary = evaluation.summary()
    assert summary["by_case"] == {"case-1": {kind: summary[kind] for kind in ("iou", "dice")}}
    assert summary["by_case"]["case-1"]["iou"] == {"WT": 0.6, "TC": 0.5, "ET": 0.4, "mean": pytest.approx(0.5)}
