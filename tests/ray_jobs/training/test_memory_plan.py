"""Patch, micro-batch and checkpointing by memory: what is decided, once, and what is kept."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models import UNET_PRESETS
from models.precision import BFLOAT16, FLOAT32
from ray_jobs.on_ray.session import LocalSession, Progress
from ray_jobs.settings.command import parse_training
from ray_jobs.settings.config import BY_MEMORY, TrainConfig, give_by_hand
from ray_jobs.settings.presets import preset
from ray_jobs.training import memory_plan
from ray_jobs.training.memory_plan import (
    GIB,
    MEMORY,
    Card,
    Settled,
    Way,
    ask,
    decide,
    list_patches,
    note_micro_batch,
    settle,
)
from ray_jobs.training.plan import TrainPlan

MEDIAN = (140, 170, 140)

MakePlan = Callable[[TrainConfig], TrainPlan]


def card(gib: float) -> Card:
    return Card(name="a card", memory=round(gib * GIB))


def decided(config: TrainConfig, gib: float, *, workers: int = 1, shape: tuple[int, ...] = MEDIAN) -> tuple[Any, ...]:
    settled = decide(config, card(gib), BFLOAT16, workers=workers, shape=shape)
    return settled.patch_shape, settled.micro_batch_size, settled.activation_checkpointing


class TellingSession(LocalSession):
    """Keeps what it tells."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, torch.device("cpu"))
        self.told: list[str] = []

    def tell(self, progress: Progress) -> None:
        self.told += [progress.message] if progress.message else []


def test_the_patch_stays_while_fewer_at_once_or_recomputed_activations_fit() -> None:
    config = preset("brats3d")
    whole = (128, 128, 128)
    wanted = {80: (whole, 4, False), 14.6: (whole, 2, False), 8: (whole, 1, False), 7: (whole, 1, True)}
    wanted |= {6.5: ((96, 128, 128), 1, False), 6: ((96, 128, 128), 1, True), 3: ((64, 64, 64), 1, True)}
    for gib, (patch, at_once, recompute) in wanted.items():
        assert decided(config, gib) == (patch, at_once, recompute)
        way = Way(patch_shape=patch, at_once=at_once, recompute=recompute)
        assert way.gpu_bytes(config, BFLOAT16, workers=1) <= gib * GIB


def test_the_reason_names_card_memory_and_what_did_not_fit() -> None:
    reason = decide(preset("g4dn"), card(14.6), BFLOAT16, workers=1, shape=MEDIAN).reason
    assert reason.startswith("settled by memory: patches of 128 x 128 x 128, 2 at once, activations kept; predicted")
    assert (
        "of the 14.6 GiB of the smallest GPU (a card), " in reason and "with patches of 128 x 128 x 128, 4 at" in reason
    )
    assert "the cases' median is 140 x 170 x 140" in reason and "\n" not in reason
    assert "nothing smaller is allowed" in decide(preset("g4dn"), card(1), BFLOAT16, workers=1, shape=MEDIAN).reason


def test_more_workers_share_the_batch_and_32_bits_take_twice_as_much() -> None:
    config = preset("brats3d")
    assert decided(config, 80, workers=4)[1] == 1 and decided(config, 80, workers=2)[1] == 2
    in_32 = decide(config, card(14.6), FLOAT32, workers=1, shape=MEDIAN)
    assert (in_32.micro_batch_size, in_32.activation_checkpointing) == (1, False)


@pytest.mark.parametrize("network", ["nnunet", "strided", "unet3d", "nnunet2d"])
def test_patches_shrink_from_the_largest_that_cases_and_network_take(network: str) -> None:
    config = UNET_PRESETS[network]
    largest = (128,) * config.dimensions
    for shape in (MEDIAN, (70, 200, 90), (155, 240, 240)):
        patches = list(list_patches(config, largest, shape))
        for patch in patches:
            config.check_sides(patch)
            assert all(side <= min(128, whole) for side, whole in zip(patch, shape[-config.dimensions :], strict=True))
        voxels = [torch.Size(patch).numel() for patch in patches]
        assert all(one > other for one, other in itertools.pairwise(voxels))
    assert list(list_patches(UNET_PRESETS["nnunet"], (128,) * 3, (70, 200, 90)))[:3] == [
        *((64, 128, 64), (32, 128, 64), (32, 128, 32))
    ]
    # No network takes a case of 20 voxels: the smallest patch that it does, which is padded.
    assert list(list_patches(UNET_PRESETS["nnunet"], (128,) * 3, (20, 30, 20))) == [(32, 64, 32)]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--micro-batch-size", "4"], ((96, 96, 96), 4, True)),
        (["--execution.no-activation-checkpointing"], ((96, 128, 128), 1, False)),
        (["--execution.activation-checkpointing"], ((128,) * 3, 1, True)),
        (["--sampling.patch-shape", "64", "64", "64"], ((64,) * 3, 4, False)),
        (
            ["--sampling.patch_shape=128", "128", "128", "--execution.no-activation-checkpointing"],
            ((128,) * 3, 1, False),
        ),
        (["--execution.no-activation_checkpointing"], ((96, 128, 128), 1, False)),
        (["--by-memory"], ((128,) * 3, 2, False)),
    ],
)
def test_a_flag_given_by_hand_wins(flags: list[str], wanted: tuple[Any, ...]) -> None:
    config = parse_training(["--preset", "g4dn", *flags])
    gib = 7 if flags[0].startswith("--execution.no") else 8
    settled = decide(config, card(gib), BFLOAT16, workers=1, shape=MEDIAN)
    done = settled.apply(config)
    assert (done.sampling.patch_shape, done.micro_batch_size, done.execution.activation_checkpointing) == wanted
    assert (
        done.by_memory == () and decide(config, None, BFLOAT16, workers=1, shape=MEDIAN).apply(config).by_memory == ()
    )


def test_without_a_gpu_all_is_as_given(make_plan: MakePlan, small_config: TrainConfig, tmp_path: Path) -> None:
    session = TellingSession(tmp_path / "run")
    plan = make_plan(dataclasses.replace(small_config, by_memory=BY_MEMORY))
    settled = settle(plan, session).config
    assert settled == small_config
    told = "no GPU, so memory settles nothing: patches of 16 x 16 x 16, 4 at once, activations kept, as given"
    assert session.told == [told]


@pytest.fixture
def config(small_config: TrainConfig) -> TrainConfig:
    """Small patches and a network of the table, in float32, with all left to memory."""
    tiny = UNET_PRESETS["tiny"]
    return dataclasses.replace(small_config, model=tiny, precision="float32", by_memory=BY_MEMORY)


def gpu_for(config: TrainConfig, *, side: int = 16, at_once: int = 4, recompute: bool = False) -> Card:
    """A GPU whose memory one worker's step takes to the last byte."""
    way = Way(patch_shape=(side,) * 3, at_once=at_once, recompute=recompute)
    return Card(name=f"for {at_once} of {side}", memory=way.gpu_bytes(config, FLOAT32, workers=1))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Card]:
    """The GPUs that a run finds, one a rank."""
    found: list[Card] = []
    monkeypatch.setattr(memory_plan, "from_every_rank", lambda value, _: found if value is None else [value])
    return found


def test_what_is_settled_is_kept_on_such_gpus_and_elsewhere_the_patch_is(
    make_plan: MakePlan, config: TrainConfig, gpus: list[Card], tmp_path: Path
) -> None:
    session, plan = TellingSession(tmp_path / "run"), make_plan(config)
    big, small, least = gpu_for(config), gpu_for(config, at_once=2), gpu_for(config, side=8, recompute=True)

    def start(*found: Card) -> tuple[int, int | None]:
        gpus[:] = found
        settled = settle(plan, session).config
        assert settled.by_memory == () and settled.sampling.global_batch_size == 4
        return settled.sampling.patch_shape[0], settled.micro_batch_size

    assert start(big, small, big) == (16, 2)  # the smallest decides
    saved = json.loads((tmp_path / "run" / MEMORY).read_text())
    assert saved["card"] == dataclasses.asdict(small) and session.told == [saved["reason"]]
    assert start(big) == (16, 4) and start(least) == (16, 1) and start(small) == (16, 2)
    note_micro_batch(plan, session.folder, 1)  # two ran out of memory
    assert start(small) == (16, 1) and "1 at once since more ran out of memory" in session.told[-1]

    other = TellingSession(tmp_path / "other")
    gpus[:] = [least]
    smaller = settle(plan, other).config.sampling.patch_shape
    assert max(smaller) <= 16 and smaller != (16, 16, 16)
    gpus[:] = [big]
    assert settle(plan, other).config.sampling.patch_shape == smaller


def test_what_an_earlier_version_settled_is_kept() -> None:
    asked = (  # as memory.json of a run from before regions had labels says it
        "['execution.activation_checkpointing', 'micro_batch_size', 'sampling.patch_shape'] (None, False) "
        "(4, 'sgd', None, 'auto') UNetConfig(dimensions=3, modalities=4, regions=3, "
        "widths=(32, 64, 128, 256, 320, 320), encoder_blocks=None, decoder_blocks=2, block='plain', norm_groups=None, "
        "down='strided', up='transposed', stem_stride=1, deep_supervision=3, head='regions') LossConfig(dice='batch', "
        "voxel='bce', dice_weight=1.0, voxel_weight=1.0, focal_gamma=2.0, smooth=1e-05, squared=False, "
        "output_weights=None)"
    )
    assert ask(preset("brats3d")) == asked


def test_a_flag_given_at_a_later_start_wins_and_the_patch_is_kept(
    make_plan: MakePlan, config: TrainConfig, gpus: list[Card], tmp_path: Path
) -> None:
    session = TellingSession(tmp_path / "run")
    gpus[:] = [small := gpu_for(config, at_once=2)]
    assert settle(make_plan(config), session).config.micro_batch_size == 2
    gpus[:] = [dataclasses.replace(small, memory=small.memory - 1000)]  # the same card under another driver
    assert settle(make_plan(config), session).config.micro_batch_size == 2 and len(set(session.told)) == 1
    by_hand = dataclasses.replace(give_by_hand(config, ("micro_batch_size",)), micro_batch_size=1)
    given = settle(make_plan(by_hand), session).config
    assert given.micro_batch_size == 1 and given.sampling.patch_shape == (16, 16, 16)
    assert "1 at once" in session.told[-1]


def test_trials_share_what_the_first_settled(
    make_plan: MakePlan, config: TrainConfig, gpus: list[Card], tmp_path: Path
) -> None:
    (tmp_path / "search").mkdir()
    plan = dataclasses.replace(make_plan(config), settled_in=str(tmp_path / "search"))
    patches = set()
    for name, found in {"one": gpu_for(config, side=8), "two": gpu_for(config)}.items():
        gpus[:] = [found]
        patches.add(settle(plan, TellingSession(tmp_path / "search" / name)).config.sampling.patch_shape)
    assert len(patches) == 1 and patches != {(16, 16, 16)}
    assert [file.relative_to(tmp_path) for file in tmp_path.rglob(MEMORY)] == [Path("search", MEMORY)]


@pytest.mark.slow
def test_of_an_imported_network_memory_settles_how_many_patches_at_once_or_nothing() -> None:
    def settled(name: str, memory: float) -> Settled:
        sides = ["--sampling.patch-shape", "64", "64", "64"]
        config = parse_training(["--preset", "brats3d", "--model.network", f"tests.own_networks:{name}", *sides])
        config = dataclasses.replace(config, by_memory=BY_MEMORY)
        return decide(config, card(memory), BFLOAT16, workers=1, shape=MEDIAN)

    all_at_once, one = settled("Plain", 80), settled("Plain", 2.3)
    assert (all_at_once.micro_batch_size, one.micro_batch_size) == (4, 1)
    assert all_at_once.patch_shape == one.patch_shape == (64, 64, 64)
    assert not one.activation_checkpointing
    unknown = settled("LooksAtValues", 80)
    assert unknown.micro_batch_size == 4 and unknown.patch_shape == (64, 64, 64)  # as given
    assert "memory settles nothing, as of tests.own_networks:LooksAtValues it cannot be predicted" in unknown.reason
