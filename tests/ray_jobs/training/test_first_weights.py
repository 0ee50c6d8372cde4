"""--init-from: a new run that begins with another's weights, and with nothing else of it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ray_jobs.checkpoints.checkpoint import CheckpointRecord, encode_checkpoint
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.first_weights import find_first_weights, notice_of_other_cases
from ray_jobs.checkpoints.run_folder import SUMMARY, RunFolder
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.config import TrainConfig, default_run_name
from ray_jobs.settings.console import open_console
from ray_jobs.training import planning
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run import Run, prepare
from storage import CohortStore, InputError


@pytest.fixture
def begin(make_plan: Callable[[TrainConfig], TrainPlan], tmp_path: Path) -> Callable[[TrainConfig], Run]:
    return lambda config: prepare(make_plan(config), LocalSession(tmp_path / "run", torch.device("cpu")))


def weights_of(run: Run) -> torch.Tensor:
    return torch.cat([value.flatten() for value in run.model.state_dict().values()])


@pytest.mark.slow
def test_a_run_begins_with_them_and_its_average_too(
    make_checkpoint: Callable[..., str], begin: Callable[[TrainConfig], Run], small_config: TrainConfig, tmp_path: Path
) -> None:
    small_config = dataclasses.replace(
        small_config, optimiser=dataclasses.replace(small_config.optimiser, ema_decay=0.9)
    )
    before = make_checkpoint("before", seed=5)
    told = dataclasses.replace(small_config, init_from=f"{before}/checkpoint_epoch_0001")
    with (plain := begin(small_config)).loader, (run := begin(told)).loader:
        wanted = CheckpointStore(before).open(CheckpointStore(before).records()[0])
        assert not torch.equal(weights_of(plain), weights_of(run))
        wanted.load_weights(plain.model)
        assert torch.equal(weights_of(plain), weights_of(run))
        assert run.average is not None
        with run.average.in_use():
            assert torch.equal(weights_of(plain), weights_of(run))
        assert run.schedule.state_dict() == plain.schedule.state_dict() and not run.history
        # From here on the run has a checkpoint of its own: the other may go, and is not looked at.
        files = encode_checkpoint(run.model, state={}, config={})
        CheckpointStore(str(tmp_path / "run")).save(CheckpointRecord(epoch=0, step=1), files)
    shutil.rmtree(before)
    with begin(told).loader:
        pass


def test_what_does_not_fit_is_refused_with_the_difference(
    make_checkpoint: Callable[..., str], small_config: TrainConfig, phantom_store: CohortStore
) -> None:
    told = dataclasses.replace(small_config, init_from=make_checkpoint("before", seed=5))
    assert find_first_weights(small_config, phantom_store) is None
    found = find_first_weights(told, phantom_store)
    assert found is not None and found.uri.endswith("before/checkpoint_epoch_0001")  # of a run its best
    wider = dataclasses.replace(told, model=dataclasses.replace(told.model, widths=(4, 16)))
    with pytest.raises(InputError, match=r"another network than this run's \(model\.widths: "):
        find_first_weights(wider, phantom_store)
    with pytest.raises(InputError, match=r"\(normalisation: zscore -> minmax\): --init-from wants"):
        find_first_weights(dataclasses.replace(told, normalisation="minmax"), phantom_store)
    other = dataclasses.replace(
        told, init_from=make_checkpoint("other", seed=5, modalities=("t2", "t1", "t1ce", "flair"))
    )
    with pytest.raises(InputError, match="was trained on t2, t1, t1ce, flair, in that order"):
        find_first_weights(other, phantom_store)


def test_cases_that_may_have_trained_it_are_a_notice(
    make_checkpoint: Callable[..., str], small_config: TrainConfig, phantom_store: CohortStore
) -> None:
    folder = Path(make_checkpoint("before", seed=5))
    told = dataclasses.replace(small_config, init_from=str(folder))
    checkpoint = find_first_weights(told, phantom_store)
    assert checkpoint is not None
    assert "dealt out otherwise" in (notice_of_other_cases(checkpoint, told, phantom_store) or "")
    config = folder / "checkpoint_epoch_0001" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"store_digest": phantom_store.digest}))
    assert notice_of_other_cases(checkpoint, told, phantom_store) is None
    moved = dataclasses.replace(told, splits=dataclasses.replace(told.splits, seed=told.splits.seed + 1))
    assert "dealt out otherwise" in (notice_of_other_cases(checkpoint, moved, phantom_store) or "")


def test_it_is_another_run_and_a_finished_one_says_how_to_go_on(small_config: TrainConfig, tmp_path: Path) -> None:
    told = dataclasses.replace(small_config, init_from="/runs/a")
    assert default_run_name(told, "digest") != default_run_name(small_config, "digest")
    folder = RunFolder(str(tmp_path), "a b")
    folder.claim({"epochs": 8})
    with pytest.raises(InputError, match=r"or the same values to resume it$"):
        folder.claim({"epochs": 16})
    folder.write(SUMMARY, {})
    with pytest.raises(InputError, match=f"with --init-from '{folder.uri}' to begin with its weights"):
        folder.claim({"epochs": 16})


def test_what_is_decided_names_the_checkpoint_and_says_what_is_odd(
    make_checkpoint: Callable[..., str],
    small_config: TrainConfig,
    phantom_store: CohortStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, answer in {"choose_workers": (1, False), "most_workers": 1, "refuse_hidden_folder": None}.items():
        monkeypatch.setattr(planning, name, lambda *_, answer=answer, **__: answer)  # which ask Ray
    told = dataclasses.replace(small_config, store=phantom_store.uri, init_from=make_checkpoint("before", seed=5))
    monkeypatch.setenv("COLUMNS", "400")
    decided = planning.decide(told, open_console())
    assert decided.plan.config.init_from == f"{told.init_from}/checkpoint_epoch_0001"
    assert "dealt out otherwise" in capsys.readouterr().out
