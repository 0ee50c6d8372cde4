"""Presets, the environment's defaults, and what makes two starts one run."""

import dataclasses
import io
import os
import sys
from typing import Any

import pytest
import tyro

from models import Execution
from ray_jobs.predicting.predict_config import PredictConfig
from ray_jobs.settings.command import parse_training
from ray_jobs.settings.config import (
    PATCH,
    decode_config,
    default_run_name,
    describe_start,
    give_by_hand,
    keep_given_patch,
    run_identity,
)
from ray_jobs.settings.flags import read_flags
from ray_jobs.settings.groups import CheckpointConfig
from ray_jobs.settings.presets import PRESETS, preset
from ray_jobs.training.planning import check_world_sizes
from storage import InputError
from tests.ray_jobs.conftest import FORMER_DEMO, FORMER_LAPTOP


@pytest.mark.parametrize("name", PRESETS)
def test_presets_carry_their_name(name: str) -> None:
    assert preset(name).preset == name


def test_command_line_goes_over_environment_over_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRATS_PRESET", "brats2d")
    monkeypatch.setenv("BRATS_WORKERS", "3")
    monkeypatch.setenv("BRATS_STORE", "s3://bucket/store.zarr")
    monkeypatch.setenv("BRATS_RUNS", "s3://bucket/runs")
    config = parse_training(["--workers", "1"])
    assert (config.preset, config.workers) == ("brats2d", 1)
    assert (config.store, config.runs) == ("s3://bucket/store.zarr", "s3://bucket/runs")
    config = parse_training(["--preset", "demo", "--source", "/scans"])
    assert (config.preset, config.workers, config.source, config.store) == ("demo", 3, "/scans", None)


def test_nested_fields_are_reachable() -> None:
    config = parse_training(["--optimiser.learning-rate", "0.5", "--sampling.patch-shape", "32", "32", "32"])
    assert config.optimiser.learning_rate == 0.5
    assert config.sampling.patch_shape == (32, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--preset", "nosuch"], "demo, laptop, brats3d, g4dn, resenc_m, resenc_l, brats2d, cs231n3d, cs231n2d"),
        (["--preset", "brat3d"], "did you mean brats3d?"),
        (["--micro-batch-size", "0"], "--micro-batch-size"),
        (["--patience", "0"], "--patience"),
        (["--patience", "3", "--splits.validation-fraction", "0"], "--patience goes by the validation score"),
        (
            ["--preset", "cs231n3d", "--splits.validation-fraction", "0"],
            "--optimiser.schedule plateau goes by the validation score",
        ),
        (["--min-workers", "0"], "--min-workers"),
        (["--checkpoints.every-steps", "0"], "--checkpoints.every-steps"),
        (["--checkpoints.every-minutes", "0"], "--checkpoints.every-minutes"),
        (["--checkpoints.keep-best", "0"], "--checkpoints.keep-best"),
        (["--source", "a", "--store", "b"], "not both"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--sampling.patch-shape", "50", "50", "50"], "48 or 56"),
        (["--optimiser.learning-rate", "-1"], "learning-rate"),
        (["--loss.voxel", "ce"], "--model.head labels"),
        (["--model.network", "a:b", "--model.widths", "4", "8"], "--model.widths says nothing of a:b, which has "),
        (["--loss.function", "a:b", "--loss.dice", "none"], "--loss.dice says nothing of a:b, which has --loss.arg"),
        (["--model.network", "a:b", "--execution.activation-checkpointing"], "recomputes the levels of a U-Net, and "),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_training(arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--epochs", "x"], "wanted --epochs INT: invalid literal for int() with base 10: 'x'; --help says more"),
        (["--epochs"], "missing value for argument '--epochs': wanted 1 values; --help lists the flags"),
        (["--gpu", "maybe"], "invalid choice 'maybe' for argument '--gpu': wanted one of"),
        (["--optimiser.learning-rat", "3"], "--optimiser.learning-rat, 3; perhaps --optimiser.learning-rate FLOAT"),
        (["--runs", ""], "wanted a value, got an empty text after --runs: perhaps of a shell's variable that is"),
        (["--runs="], "got an empty text as --runs=: perhaps"),
        (["stray"], "unrecognized options: stray; --help lists the flags"),
        (["--sampling.patch-shape", "3", "x", "4"], "wanted --sampling.patch-shape [INT [INT ...]]: "),
    ],
)
def test_what_the_parser_refuses_is_said_in_one_line_too(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as caught:
        parse_training(arguments)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_is_one_line_on_any_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(
        InputError, match=r"^wanted --checkpoint \[STR \[STR ...\]\], --input STR, --output STR, got none"
    ):
        read_flags(PredictConfig, [])
    assert os.environ["COLUMNS"] == "40"


def test_a_flag_of_several_subcommands_is_named_once() -> None:
    read: Any = tyro.extras.subcommand_cli_from_dict
    with pytest.raises(InputError, match=r"--input \(applied to .* a\).*; perhaps --input STR$"):
        read_flags({"a": CheckpointConfig, "b": PredictConfig, "c": PredictConfig}, ["a", "--input", "x"], read=read)


def test_what_is_missing_is_said_with_what_came_instead() -> None:
    with pytest.raises(InputError, match=r"^wanted --input STR, --output STR, got none, and not --inputs; --help"):
        read_flags(PredictConfig, ["--checkpoint", "a", "--inputs"])


def test_run_name_follows_what_the_result_depends_on() -> None:
    config = preset("demo")

    def named(**changes: object) -> str:
        return default_run_name(dataclasses.replace(config, **changes), "digest")

    assert named() == named(workers=1, runs="elsewhere", cache_gb=1.0)
    assert named() != named(epochs=config.epochs + 1)
    assert named() != default_run_name(config, "another store")
    assert named().startswith("demo-")


def test_the_micro_batch_and_checkpointing_are_no_part_of_a_run() -> None:
    config = preset("demo")
    other = dataclasses.replace(config, micro_batch_size=1, execution=Execution(activation_checkpointing=True))
    assert run_identity(other, "digest") == run_identity(config, "digest")
    assert run_identity(dataclasses.replace(config, execution=Execution(compile=True)), "digest") != run_identity(
        config, "digest"
    )
    assert describe_start(other)["micro_batch_size"] == 1 and describe_start(other)["activation_checkpointing"]
    # What earlier versions called a run without a name, when both were part of it.
    assert default_run_name(parse_training(FORMER_DEMO), "digest") == "demo-493d9fa4"
    assert default_run_name(parse_training(FORMER_LAPTOP), "digest") == "laptop-a2576ac3"


def test_a_patch_that_memory_settles_is_one_run_whatever_it_comes_to() -> None:
    config = preset("brats3d")
    identity = run_identity(config, "digest")
    assert identity["sampling"]["patch_shape"] == "by memory"
    assert identity != run_identity(give_by_hand(config, [PATCH]), "digest")
    assert keep_given_patch(config, None) == keep_given_patch(config, identity) == config
    # Of a run begun with a given patch, as all were in earlier versions, the patch stays.
    sampling = dataclasses.replace(config.sampling, patch_shape=(96, 96, 96))
    given = give_by_hand(dataclasses.replace(config, sampling=sampling), [PATCH])
    before = run_identity(given, "digest")
    assert run_identity(keep_given_patch(config, before), "digest") == before
    assert keep_given_patch(config, before).by_memory == ("micro_batch_size", "execution.activation_checkpointing")


def test_runs_begun_before_checkpoints_named_their_scans_are_the_same_runs() -> None:
    """The store's digest stands for the scans; a key more would refuse them."""
    assert "modalities" not in run_identity(preset("demo"), "digest")


def test_a_labels_head_begun_before_regions_could_exclude_each_other_is_the_same_run() -> None:
    nested = parse_training([*FORMER_DEMO, "--loss.voxel", "ce", "--model.head", "labels"])
    identity = run_identity(nested, "digest")
    assert "region_labels" not in identity["model"]
    assert default_run_name(nested, "digest") == "demo-6ca792cd"  # as earlier versions called it
    assert decode_config(identity).model == nested.model
    # What is said is part of the run.
    model = dataclasses.replace(nested.model, regions=4, region_labels=((1, 2), (1,), (2,), (3,)))
    forest = run_identity(dataclasses.replace(nested, model=model), "digest")
    assert forest["model"]["region_labels"] == [[1, 2], [1], [2], [3]]
    assert decode_config(forest).model == model


def test_an_imported_network_and_loss_are_the_run_by_name_and_arguments() -> None:
    flags = ["--model.network", "a:b", "--model.arguments", "c=1", "--loss.function", "d:e"]
    config = parse_training(flags)
    identity = run_identity(config, "digest")
    assert identity["model"] == {
        "network": "a:b",
        "arguments": ["c=1"],
        "dimensions": 3,
        "modalities": 4,
        "regions": 3,
        "head": "regions",
    }
    assert identity["loss"] == {"function": "d:e", "output_weights": None}
    decoded = decode_config(identity)
    assert run_identity(decoded, "digest") == identity
    assert (decoded.model.network, decoded.model.arguments, decoded.loss.function) == ("a:b", ("c=1",), "d:e")
    # Whatever the preset's U-Net would have been.
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, widths=(4, 8), deep_supervision=0))
    assert run_identity(other, "digest") == identity
    assert "network" not in run_identity(parse_training([]), "digest")["model"]


def test_workers_are_offered_only_where_there_is_room_for_them() -> None:
    config = parse_training(["--sampling.global-batch-size", "5"])
    with pytest.raises(InputError, match="give --workers 1, or another"):
        check_world_sizes(config, 2, 2, room=2)
    with pytest.raises(InputError, match="give --workers 1 or 5, or another"):
        check_world_sizes(config, 2, 2)


def test_a_run_that_names_no_fold_is_the_one_it_was_and_folds_are_told_apart() -> None:
    def identity(*arguments: str) -> dict[str, Any]:
        return run_identity(parse_training(arguments), "digest")

    assert identity()["splits"]["fold"] == 0  # as every run has said so far; the default is None now
    assert decode_config(identity()).splits.folds is None
    folds = [identity("--splits.folds", "3", *fold)["splits"]["fold"] for fold in ((), ("--splits.fold", "2"))]
    assert folds == [None, 2]
    # Of commit 2b5113e, which knew no cross-validation.
    assert default_run_name(parse_training(FORMER_DEMO), "digest") == "demo-493d9fa4"
    third = [*FORMER_DEMO, "--splits.folds", "5", "--splits.fold", "3"]
    assert default_run_name(parse_training(third), "digest") == "demo-d794f4bb"


def test_folds_with_patience_need_no_share() -> None:
    assert parse_training(["--patience", "3", "--splits.folds", "2", "--splits.validation-fraction", "0"]).patience == 3
