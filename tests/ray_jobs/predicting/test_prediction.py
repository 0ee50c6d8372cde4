"""One case through a plan: the same from store and folder, averaged over networks, cut by the rules."""

import dataclasses
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from benchmarks.prediction import open_input, run
from benchmarks.settings import PredictionBenchmark
from models import RegionRules
from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.evaluation.validation import CaseEvaluator
from ray_jobs.predicting.finishing import CaseFinisher
from ray_jobs.predicting.folder import CaseResult
from ray_jobs.predicting.input import Told, open_cohort
from ray_jobs.predicting.predict_config import may_lack_scans
from ray_jobs.predicting.prediction import CasePredictor, InferenceConfig, MakePredictor, PredictionPlan
from ray_jobs.predicting.reading import FolderInput, StoreInput
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.label_choice import refuse_incomplete, told_values
from storage import CohortStore, Frame, InputError, find_cases
from storage.labels.conventions import BRATS_124, GLI_2024, MODALITIES
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS, TASKS

REGIONS = GLI_2021_TASK.region_names

CASE = "BraTS20_Training_002"
THRESHOLDS = (0.502, 0.501, 0.5)

MakeCheckpoint = Callable[..., str]
Predict = Callable[..., CaseResult]


def cut_at(thresholds: tuple[float, ...]) -> RegionRules:
    return RegionRules(labels=tuple(region.labels for region in GLIOMA_REGIONS), thresholds=thresholds)


def decode(raw: bytes) -> Any:
    return np.asanyarray(nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(raw))).dataobj)


@pytest.fixture
def predict(phantom_store: CohortStore) -> Predict:
    """Predict CASE in this process."""

    def run(checkpoints: Sequence[str], **changes: Any) -> CaseResult:
        plan = PredictionPlan(
            checkpoints=tuple(checkpoints),
            source=StoreInput(uri=phantom_store.uri),
            rules=cut_at(THRESHOLDS),
            inference=InferenceConfig(),
            probabilities=True,
        )
        finish = CaseFinisher(scored_by="plain", written=None, figures=False, viewer=False)
        of_finish = {name: changes.pop(name) for name in ("figures", "written") if name in changes}
        predicted = MakePredictor(plan=dataclasses.replace(plan, **changes), use_gpu=False)()(CASE)
        # As it comes from the worker that predicted it: what is shared between processes cannot be written to.
        for array in (predicted.held.arrays.image_MDHW, predicted.predicted_DHW, predicted.probabilities_RDHW):
            array.setflags(write=False)
        return dataclasses.replace(finish, **of_finish)(predicted)

    return run


@pytest.mark.slow
def test_a_store_and_its_folder_give_the_same_bytes(
    phantom_source: Path, make_checkpoint: MakeCheckpoint, predict: Predict
) -> None:
    checkpoints = [make_checkpoint("one", seed=1)]
    cases = {case.case_id: case for case in find_cases(phantom_source).cases}
    folder = FolderInput(cases=cases, modalities=MODALITIES, task=GLI_2021_TASK)
    # An untrained network's regions are foam, whose surfaces take seconds to draw: a hundredth of it will do.
    drawn = {"figures": True, "rules": cut_at((0.511, 0.97, 0.9))}
    from_store, from_folder = predict(checkpoints, **drawn), predict(checkpoints, **drawn, source=folder)
    assert set(from_store.files) == {
        *(f"{CASE}_seg.nii.gz", f"{CASE}_prob.nii.gz"),
        *(f"figures/{CASE}_sections.png", f"figures/{CASE}_3d.png"),
    }
    assert from_store.files == from_folder.files
    assert from_store.record["regions"] == from_folder.record["regions"]
    assert set(np.unique(decode(from_store.files[f"{CASE}_seg.nii.gz"]))) == {0, 1, 2, 4}


@pytest.mark.slow
def test_the_segmentation_follows_from_the_probabilities(make_checkpoint: MakeCheckpoint, predict: Predict) -> None:
    done = predict([make_checkpoint("one", seed=1)], written=GLI_2024)
    passes = decode(done.files[f"{CASE}_prob.nii.gz"]) >= np.array(THRESHOLDS, np.float32)
    enhancing, core, whole = passes[..., 2], passes[..., 1:].any(-1), passes.any(-1)
    wanted = np.where(enhancing, 3, np.where(core, 1, np.where(whole, 2, 0)))
    np.testing.assert_array_equal(decode(done.files[f"{CASE}_seg.nii.gz"]), wanted)
    volumes = [done.record["regions"][region]["predicted_mm3"] for region in REGIONS]
    assert volumes == pytest.approx([mask.sum() * 2 * 2 * 2 for mask in (whole, core, enhancing)])
    assert whole.any() and (whole & ~enhancing).any()


@pytest.mark.slow
def test_networks_of_different_runs_are_averaged_each_with_its_own_view(
    make_checkpoint: MakeCheckpoint, predict: Predict, small_config: TrainConfig
) -> None:
    """One sees the head by z-scores, the other the scan but for ten slices at each end, scaled to its range."""
    other = dataclasses.replace(
        small_config,
        normalisation="minmax",
        frame=Frame(grid="scan", drop_slices=10),
        validation=dataclasses.replace(small_config.validation, head_only=False),
    )
    one, two = make_checkpoint("one", seed=1), make_checkpoint("two", seed=2, config=other)
    nowhere = cut_at((0.99, 0.99, 0.99))  # nothing to score, which takes longer than to predict it
    apart = [decode(predict([uri], rules=nowhere).files[f"{CASE}_prob.nii.gz"]) for uri in (one, two)]
    together = decode(predict([one, two], rules=nowhere).files[f"{CASE}_prob.nii.gz"])
    np.testing.assert_array_equal(together, ((apart[0] + apart[1]) / 2).astype(np.float32))
    # The second network's slices lie where they were cut from, and nothing is said of those left out.
    said = apart[1].any(axis=(0, 1, 3))
    assert not said[:10].any() and said[10:-10].all() and not said[-10:].any()
    assert (apart[1][0, 0, 10:-10] > 0).all() and not apart[0][0, 0].any()  # a corner of the scan, far from the head


def test_switches_reach_the_networks(make_checkpoint: MakeCheckpoint, phantom_store: CohortStore) -> None:
    """With mirroring the prediction of a mirrored image is the mirrored prediction."""
    network = open_trained(make_checkpoint("one", seed=1), torch.device("cpu"))
    image = torch.randn(4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    larger = torch.randn(4, 32, 16, 16, generator=torch.Generator().manual_seed(0))

    def evaluator_of(inference: InferenceConfig) -> CaseEvaluator:
        plan = PredictionPlan(
            checkpoints=(network.uri,),
            source=StoreInput(uri=phantom_store.uri),
            rules=cut_at(THRESHOLDS),
            inference=inference,
            probabilities=False,
        )
        (evaluator,) = CasePredictor(plan, [network], torch.device("cpu")).evaluators
        return evaluator

    def asymmetry(inference: InferenceConfig) -> float:
        evaluator = evaluator_of(inference)
        plain, mirrored = evaluator.probabilities(image), evaluator.probabilities(image.flip(3)).flip(3)
        return float((plain - mirrored).abs().max())

    assert asymmetry(InferenceConfig()) > 1e-3
    assert asymmetry(InferenceConfig(mirror=True)) < 1e-6
    with torch.inference_mode(), network.precision.autocast(larger.device):
        whole = torch.sigmoid(network.model(larger[None])[0][0].float())
    with torch.inference_mode():
        at_once, in_windows = (evaluator_of(InferenceConfig(whole=each)).probabilities(larger) for each in (True, None))
    assert (at_once - whole).abs().max() < 1e-6 < 1e-3 < (in_windows - whole).abs().max()
    # What is not given is as the network was validated.
    validation = dataclasses.replace(network.config.validation, mirror=True)
    network = dataclasses.replace(network, config=dataclasses.replace(network.config, validation=validation))
    assert asymmetry(InferenceConfig()) < 1e-6
    assert asymmetry(InferenceConfig(mirror=False)) > 1e-3


def test_a_convention_without_a_value_for_each_label_cannot_be_written() -> None:
    incomplete = told_values({1: 1, 2: 2})
    assert incomplete is not None
    with pytest.raises(InputError, match=r"custom-1:1,2:2, which has no value for enhancing \(3\): give one in"):
        refuse_incomplete(incomplete, GLI_2021_TASK)
    for task in TASKS.values():
        refuse_incomplete(task.convention, task)


def test_a_case_that_is_not_there_is_named(make_checkpoint: MakeCheckpoint, phantom_store: CohortStore) -> None:
    plan = PredictionPlan(
        checkpoints=(make_checkpoint("one", seed=1),),
        source=StoreInput(uri=phantom_store.uri),
        rules=cut_at(THRESHOLDS),
        inference=InferenceConfig(),
        probabilities=False,
    )
    with pytest.raises(InputError, match="wanted case nobody"):
        MakePredictor(plan=plan, use_gpu=False)()("nobody")


@pytest.mark.slow
def test_a_case_that_lacks_scans_is_predicted_by_a_network_that_was_trained_to(
    make_checkpoint: MakeCheckpoint,
    predict: Predict,
    small_config: TrainConfig,
    phantom_source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray_jobs.predicting.input.refuse_hidden_source", lambda _: None)  # asks Ray for its nodes
    dropping = dataclasses.replace(small_config.sampling, modality_dropout=0.5)
    able = make_checkpoint("able", seed=1, config=dataclasses.replace(small_config, sampling=dropping))
    plain = make_checkpoint("plain", seed=1)
    assert may_lack_scans([find_checkpoint(able)])
    assert not may_lack_scans([find_checkpoint(able), find_checkpoint(plain)])
    for file in phantom_source.rglob(f"{CASE}_*"):
        if "_t2" not in file.name:
            (tmp_path / CASE).mkdir(exist_ok=True)
            (tmp_path / CASE / file.name).symlink_to(file)
    told = Told(task=None, label_map=BRATS_124)
    options: dict[str, Any] = {"modalities": MODALITIES, "names": {}, "told": told, "workers": 1}
    with pytest.raises(InputError, match="missing modalities t2"):
        open_cohort(str(tmp_path), GLI_2021_TASK, **options)
    cohort = open_cohort(str(tmp_path), GLI_2021_TASK, some_scans=True, **options)
    without = predict([able], source=cohort.source)
    assert without.record["notes"] == ["scans that are missing, taken as 0: t2"]
    # As the training shows it: the scan is 0 where the others are what they are in the whole case.
    whole = predict([able])
    assert without.files[f"{CASE}_prob.nii.gz"] != whole.files[f"{CASE}_prob.nii.gz"]
    assert "notes" not in whole.record


def test_an_input_that_is_not_there_may_be_a_folder_of_cases_or_a_store(tmp_path: Path) -> None:
    told = Told(task=None, label_map=None)
    with pytest.raises(InputError, match=r"a folder of NIfTI cases or a store, found nothing at .*nowhere"):
        open_cohort(str(tmp_path / "nowhere"), GLI_2021_TASK, modalities=MODALITIES, names={}, told=told, workers=1)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")
def test_the_benchmark_says_what_each_part_costs(
    make_checkpoint: MakeCheckpoint,
    phantom_source: Path,
    phantom_store: CohortStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.prediction.WARM", 1)
    monkeypatch.setattr("benchmarks.prediction.COUNTED", 1)
    nowhere = make_checkpoint("one", seed=1, thresholds=(0.99, 0.99, 0.99))  # nothing to score or to draw
    file = tmp_path / "figures.json"
    run(PredictionBenchmark(checkpoint=nowhere, input=str(phantom_source), cases=1, device="cpu", json=file))
    *parts, beside, rest = json.loads(file.read_text())["rows"]
    assert beside["s a case"] > rest["s a case"]  # by the network's
    rows = {row["part"]: row["CPU-s a case"] for row in parts}
    assert list(rows) == ["reading", "network", "writing", "scoring", "figures", "viewer", "all but the network"]
    assert rows.pop("all but the network") == pytest.approx(sum(rows.values()) - rows["network"])
    assert all(rows.values())
    source, case_ids = open_input(phantom_store.uri, GLI_2021_TASK, MODALITIES)
    assert list(case_ids) == list(phantom_store.case_ids)
    assert source.read(case_ids[0]).case.case_id == case_ids[0]
