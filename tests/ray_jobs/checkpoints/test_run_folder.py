"""A run's folder belongs to one configuration and store."""

import dataclasses
from pathlib import Path

import pytest

from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY, RunFolder
from ray_jobs.settings.config import run_identity
from ray_jobs.settings.presets import preset
from storage import InputError


def test_a_new_run_is_claimed_and_a_finished_one_returns_its_summary(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "one")
    assert not (tmp_path / "one").exists()
    assert folder.claim({"epochs": 3}) is None
    assert folder.claim({"epochs": 3}) is None  # unfinished: it resumes
    folder.write(SUMMARY, {"run": "one"})
    assert RunFolder(str(tmp_path), "one").claim({"epochs": 3}) == {"run": "one"}
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["config.json", "summary.json"]


def test_another_configuration_under_the_same_name_is_refused_with_the_difference(tmp_path: Path) -> None:
    RunFolder(str(tmp_path), "one").claim({"optimiser": {"rate": 0.1}, "epochs": 3})
    with pytest.raises(InputError, match=r"optimiser\.rate: 0\.1 -> 0\.2"):
        RunFolder(str(tmp_path), "one").claim({"optimiser": {"rate": 0.2}, "epochs": 3})


def test_a_run_begun_when_the_micro_batch_was_part_of_it_goes_on_with_another(tmp_path: Path) -> None:
    config = dataclasses.replace(preset("demo"), micro_batch_size=4)
    before = run_identity(config, "digest") | {"micro_batch_size": 2}
    before["execution"] |= {"activation_checkpointing": True}
    RunFolder(str(tmp_path), "one").write(CONFIG, before)
    assert RunFolder(str(tmp_path), "one").claim(run_identity(config, "digest")) is None
    with pytest.raises(InputError, match=r"started otherwise \(epochs: 8 -> 9\)"):
        RunFolder(str(tmp_path), "one").claim(run_identity(dataclasses.replace(config, epochs=9), "digest"))


def test_what_cannot_be_read_or_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "one").touch()  # where the run's folder has to be
    with pytest.raises(InputError, match=r"cannot write config\.json to .*one: .*; make room or get permission there"):
        RunFolder(str(tmp_path), "one").claim({"epochs": 3})
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot be read: config\.json: "):
        RunFolder(str(tmp_path), "two").claim({"epochs": 3})


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_names_that_are_no_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="--name"):
        RunFolder(str(tmp_path), name)
