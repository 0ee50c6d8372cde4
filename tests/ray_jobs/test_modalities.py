"""Cohorts of other scans than the usual four are trained on and predicted; another order of scans is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import Decision, RegionRules
from ray_jobs.checkpoints.lookup import find_checkpoint, read_modalities
from ray_jobs.evaluation.case_image import CaseImage
from ray_jobs.on_ray.conversion import convert_cohort
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.pictures.figures import draw_cross_section
from ray_jobs.predicting.finishing import CaseFinisher
from ray_jobs.predicting.input import Told, open_cohort
from ray_jobs.predicting.predict_config import PredictConfig, choose_modalities
from ray_jobs.predicting.prediction import InferenceConfig, MakePredictor, PredictionPlan
from ray_jobs.predicting.reading import FolderInput, StoreInput
from ray_jobs.searching.cases_to_score import cases_of
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.input_check import check_input, fit_to_store
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.train_loop import train
from storage import MODALITIES, CohortStore, InputError, assign_splits, find_cases, open_store
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS

REGIONS = GLI_2021_TASK.region_names

TURNED = ("t1", "t1ce", "t2", "flair")
TWO = ("t1ce", "flair")  # not in the usual order either

MakeCheckpoint = Callable[..., str]


@pytest.fixture(scope="module")
def convert(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CohortStore]:
    """Convert the phantoms' scans of these names, in this order."""

    def make(*modalities: str) -> CohortStore:
        uri = str(tmp_path_factory.mktemp("scans") / "cohort.zarr")
        convert_cohort(phantom_source, uri, modalities=modalities)
        return open_store(uri)

    return make


def with_scans(config: TrainConfig, modalities: int) -> TrainConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, modalities=modalities))


def choose(*checkpoints: str, **given: Any) -> tuple[str, ...]:
    """What predict.py would read."""
    config = PredictConfig(checkpoint=checkpoints, input="in", output="out", **given)
    return choose_modalities(config, [find_checkpoint(uri) for uri in checkpoints])


@pytest.mark.slow
@pytest.mark.usefixtures("bare_pictures")
def test_a_cohort_of_two_scans_is_trained_on_to_the_end_and_predicted(
    convert: Callable[..., CohortStore], phantom_source: Path, small_config: TrainConfig, tmp_path: Path
) -> None:
    store = convert(*TWO)
    splits = assign_splits(store.infos())
    config = with_scans(dataclasses.replace(small_config, epochs=1), 2)
    plan = TrainPlan(config=config, store=store.uri, splits=splits, cache=tmp_path / "cache")
    result = train(plan, LocalSession(tmp_path / "run", torch.device("cpu")))
    assert result["validation"]["cases"] == len(splits.validation) and result["test"]["cases"] == len(splits.test)
    assert 0 < result["baseline_iou"]["mean"] <= 1
    drawn = {file.name for file in (tmp_path / "run").glob("cross_section_*.png")}
    assert drawn == {f"cross_section_{case_id}.png" for case_id in (*splits.validation, *splits.test)}

    checkpoint = result["checkpoint"]
    assert json.loads((Path(checkpoint) / "config.json").read_text())["modalities"] == list(TWO)
    assert choose(checkpoint) == TWO  # nobody has to remember the order
    assert cases_of(store.uri, "test", checkpoint) == splits.test
    cases = {case.case_id: case for case in find_cases(phantom_source, modalities=TWO).cases}
    predicted = []
    for source in (
        StoreInput(uri=store.uri),
        FolderInput(cases=cases, modalities=choose(checkpoint), task=GLI_2021_TASK),
    ):
        prediction = PredictionPlan(
            checkpoints=(checkpoint,),
            source=source,
            # At the run's own thresholds its foam of regions would take seconds to score and draw.
            rules=RegionRules(labels=tuple(region.labels for region in GLIOMA_REGIONS), thresholds=(0.8, 0.9, 0.9)),
            inference=InferenceConfig(),
            probabilities=True,
        )
        finish = CaseFinisher(scored_by="plain", written=None, figures=isinstance(source, FolderInput), viewer=False)
        predicted.append(finish(MakePredictor(plan=prediction, use_gpu=False)()(splits.test[0])).files)
    from_store, from_folder = predicted
    assert len(from_store) == 2 and len(from_folder) == 4  # with figures
    assert all(from_folder[name] == content for name, content in from_store.items())


@pytest.mark.parametrize("modalities", [TURNED, TWO], ids=len)
def test_columns_of_a_validation_figure_have_the_stores_names(modalities: tuple[str, ...]) -> None:
    shape = (4, 5, 6)
    image = CaseImage(
        case_id="one",
        modalities=modalities,
        regions=GLIOMA_REGIONS,
        image_MDHW=torch.rand(len(modalities), *shape).numpy(),
        regions_RDHW=torch.ones(3, *shape, dtype=torch.bool).numpy(),
        probabilities_RDHW=torch.rand(3, *shape).numpy(),
    )
    figure = draw_cross_section(image, Decision.plain(3))
    titles = [text.get_text() for text in figure.texts]
    assert [title for title in titles if title in modalities] == list(modalities)


def test_predict_reads_what_the_network_was_trained_on_and_refuses_other_scans(make_checkpoint: MakeCheckpoint) -> None:
    turned, usual = make_checkpoint("turned", seed=1, modalities=TURNED), make_checkpoint("usual", seed=1)
    assert choose(turned) == choose(turned, modalities=TURNED) == TURNED
    assert choose(usual, usual) == MODALITIES
    for given, gives, remedy in (
        ({"modalities": MODALITIES}, "--modalities gives flair, t1, t1ce, t2", "leave out --modalities"),
        ({"modalities": TWO}, "--modalities gives t1ce, flair", "leave out --modalities"),
    ):
        with pytest.raises(InputError) as caught:
            choose(turned, **given)
        said = str(caught.value)
        assert "was trained on t1, t1ce, t2, flair, in that order" in said and gives in said and remedy in said
        assert "\n" not in said
    with pytest.raises(InputError, match=r"usual.* was trained on flair.*turned.* gives t1, .*give one of them alone"):
        choose(turned, usual)


def test_an_older_checkpoint_is_used_as_before(make_checkpoint: MakeCheckpoint, small_config: TrainConfig) -> None:
    """It has only the number of its scans."""
    older = make_checkpoint("older", seed=1, modalities=None)
    assert read_modalities(find_checkpoint(older)) is None
    assert choose(older) == MODALITIES and choose(older, modalities=TURNED) == TURNED
    of_two = make_checkpoint("of-two", seed=1, modalities=None, config=with_scans(small_config, 2))
    assert choose(of_two, modalities=TWO) == TWO
    with pytest.raises(InputError, match=r"trained on 2 scans \(it does not say which\), --modalities gives 4, .*name"):
        choose(of_two)
    turned = make_checkpoint("turned", seed=1, modalities=TURNED)
    assert choose(older, turned) == TURNED


def test_a_store_of_other_scans_than_the_networks_is_not_predicted(convert: Callable[..., CohortStore]) -> None:
    uri, told = convert(*TURNED).uri, Told(task=None, label_map=None)
    with pytest.raises(InputError, match=r"wanted the network's scans flair, .* has t1, .*: give the NIfTI folder, or"):
        open_cohort(uri, GLI_2021_TASK, modalities=MODALITIES, names={}, told=told, workers=1)


def test_thresholds_are_not_sought_in_a_store_of_other_scans(
    convert: Callable[..., CohortStore], phantom_store: CohortStore, make_checkpoint: MakeCheckpoint, run_here
) -> None:
    run, turned = make_checkpoint("usual", seed=1), convert(*TURNED)
    with pytest.raises(
        InputError, match=r"trained on flair, .*, in that order, the store .* gives t1, .*: give a store"
    ):
        cases_of(turned.uri, "all", run)
    assert cases_of(phantom_store.uri, "all", run) == phantom_store.case_ids
    assert cases_of(turned.uri, "all", make_checkpoint("older", seed=1, modalities=None)) == turned.case_ids
    for script, more in (("threshold.py", []), ("tune.py", ["--search", "threshold"])):
        done = run_here(script, *more, "--checkpoint", run, "--store", turned.uri, "--split", "all")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "in that order" in done.stderr, done.stderr


def test_a_run_takes_a_network_for_the_scans_and_regions_of_its_store(
    convert: Callable[..., CohortStore], phantom_store: CohortStore, small_config: TrainConfig
) -> None:
    for store, scans in ((convert(*TWO), 2), (phantom_store, 4)):
        for config in (small_config, with_scans(small_config, 3)):
            assert fit_to_store(config, store).model == with_scans(small_config, scans).model
    with pytest.raises(
        InputError, match=r"wanted --thresholds for WT, TC, ET, which are the regions of .*, got 2 numbers"
    ):
        check_input(dataclasses.replace(small_config, store=phantom_store.uri, thresholds=(0.5, 0.5)))
