"""Which checkpoint a folder stands for: a run's best one, or one for each fold of a cross-validation."""

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from ray_jobs.checkpoints.folds import fold_folder, fold_of, folds_of
from ray_jobs.checkpoints.lookup import find_checkpoint, find_checkpoints, other_version, read_config
from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY, RunFolder
from ray_jobs.evaluation.decision_file import read_decision
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.settings.config import TrainConfig, run_identity
from storage import InputError, SplitConfig


@pytest.fixture
def whole(make_checkpoint: Callable[..., str], small_config: TrainConfig, tmp_path: Path) -> RunFolder:
    """A cross-validation of two finished folds."""
    folder = RunFolder(str(tmp_path), "cv")
    config = dataclasses.replace(small_config, splits=SplitConfig(folds=2))
    folder.claim(run_identity(config, "digest"))
    for fold in range(2):
        own = dataclasses.replace(config, splits=config.splits.of_fold(fold))
        make_checkpoint(f"cv/fold-{fold}", seed=fold, config=own)
        fold_folder(folder, fold).write(SUMMARY, {})
    return folder


def test_a_cross_validation_stands_for_the_best_checkpoint_of_each_fold(whole: RunFolder) -> None:
    found = find_checkpoints(whole.uri)
    assert [each.uri for each in found] == [f"{whole.uri}/fold-{fold}/checkpoint_epoch_0001" for fold in range(2)]
    assert [read_config(each).splits.fold for each in found] == [0, 1]
    assert [each.uri for each in find_checkpoints(f"{whole.uri}/fold-1")] == [found[1].uri]


def test_it_is_not_one_checkpoint(whole: RunFolder) -> None:
    with pytest.raises(InputError, match=r"is a cross-validation of 2: give the folder of a fold, such as .*/fold-0$"):
        find_checkpoint(whole.uri)


def test_a_fold_that_is_not_finished_is_named(whole: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "cv" / "fold-1" / SUMMARY).unlink()
    with pytest.raises(InputError, match=r"wanted the 2 folds .* found fold-1 not finished"):
        find_checkpoints(whole.uri)


def test_runs_are_told_from_folds_and_from_cross_validations(whole: RunFolder, small_config: TrainConfig) -> None:
    alone = run_identity(small_config, "digest")
    fold = run_identity(dataclasses.replace(small_config, splits=SplitConfig(folds=3, fold=2)), "digest")
    before = {"splits": {"seed": 0, "validation_fraction": 0.15}}  # which knew no folds
    assert [folds_of(each) for each in (alone, fold, before, None, whole.read(CONFIG))] == [None, None, None, None, 2]
    assert folds_of({**(whole.read(CONFIG) or {}), "search": {}}) is None  # whose trials have folds, and it has not
    assert [fold_of(each) for each in (alone, fold, before, None, whole.read(CONFIG))] == [None, 2, None, None, None]


def test_another_version_of_an_imported_network_is_named(
    make_checkpoint: Callable[..., str], small_config: TrainConfig
) -> None:
    model = dataclasses.replace(small_config.model, network="torch.nn:Conv3d")
    found = find_checkpoint(make_checkpoint("run", seed=0, config=dataclasses.replace(small_config, model=model)))
    values, here = json.loads(found.read(CONFIG)), f"torch {version('torch')}"

    def told(made_with: str | None) -> str | None:
        found.put(CONFIG, json.dumps(values | {"made_with": {"network": made_with}}).encode())
        return other_version(found)

    assert told(here) is None
    assert told("torch 1.0") == f"{found.uri}: torch.nn:Conv3d was trained with torch 1.0, and here it is {here}"
    assert (told(None) or "").endswith(f"was trained with a module of no known version, and here it is {here}")
    assert other_version(find_checkpoint(make_checkpoint("ours", seed=0))) is None


@pytest.mark.parametrize("file", [CONFIG, "record.json", "decision.json", "model.safetensors"])
def test_a_damaged_file_is_named(file: str, make_checkpoint: Callable[..., str], small_config: TrainConfig) -> None:
    import torch

    place = Path(make_checkpoint("run", seed=1)) / "checkpoint_epoch_0001" / file
    place.write_bytes(place.read_bytes()[:20])
    with pytest.raises(InputError, match=f"{file}.* (damaged|another) "):
        open_trained(find_checkpoint(str(place.parent)).uri, torch.device("cpu"))
        find_checkpoint(str(place.parents[1]))
        read_decision(find_checkpoint(str(place.parent)))


def test_a_run_that_is_called_otherwise_is_suggested(tmp_path: Path) -> None:
    for name in ("demo-20261130-0700", "demo-20261130-0800", "other"):
        (tmp_path / name).mkdir()
    for asked, meant in {"demo": "demo-20261130-0800", "othre": "other"}.items():
        with pytest.raises(InputError, match=f"names, perhaps {tmp_path / meant}$"):
            find_checkpoint(str(tmp_path / asked))
    with pytest.raises(InputError, match=r"tune\.py names$"):
        find_checkpoint(str(tmp_path / "nothing" / "alike"))
