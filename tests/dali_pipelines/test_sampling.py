"""What is drawn: a pure function of the sample's number, with the frequencies and ranges of the published tables."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_pipelines import AUGMENTATION_PRESETS, AugmentationConfig, SamplingConfig, Shard
from dali_pipelines.geometry import draw_geometry
from dali_pipelines.intensity_draws import draw_intensities
from dali_pipelines.sampling import PatchPlan, PatchSampler
from dali_pipelines.source import make_sampler
from storage.errors import InputError

DRAWS = 3000


def open_sampler(
    cache: Any, augmentation: AugmentationConfig = AUGMENTATION_PRESETS["nnunet"], **options: Any
) -> PatchSampler:
    sampling = SamplingConfig(**({"patch_shape": (8, 10, 9)} | options))
    infos = [cache.info(name) for name in sorted(cache.cases)]
    coefficients = {info.case_id: (np.ones(4, np.float32), np.zeros(4, np.float32)) for info in infos}
    return PatchSampler(infos, cache.foreground, coefficients, sampling=sampling, augmentation=augmentation)


def flatten(plan: PatchPlan) -> list[Any]:
    return flatten_without(plan, ())


def flatten_without(plan: PatchPlan, names: Collection[str]) -> list[Any]:
    parameters = [
        (name, np.asarray(value).tolist()) for name, value in sorted(plan.parameters.items()) if name not in names
    ]
    return [plan.case_id, plan.foreground, plan.read_origin, plan.read_shape, parameters]


@settings(max_examples=50, deadline=None)
@given(
    local_batch=st.integers(1, 4),
    world_size=st.sampled_from([1, 2, 3, 4, 8]),
    step=st.integers(0, 40),
)
def test_the_ranks_of_a_step_share_out_its_samples(local_batch: int, world_size: int, step: int) -> None:
    batch = local_batch * world_size
    ranks = [Shard(rank=rank, world_size=world_size).sample_indices(step, batch) for rank in range(world_size)]
    assert all(len(indices) == local_batch for indices in ranks)
    assert sorted(index for indices in ranks for index in indices) == list(range(step * batch, (step + 1) * batch))


@pytest.mark.parametrize("rank, world_size", [(-1, 2), (2, 2), (0, 0)])
def test_a_shard_outside_the_world_is_refused(rank: int, world_size: int) -> None:
    with pytest.raises(InputError, match="rank"):
        Shard(rank=rank, world_size=world_size)


def test_plans_depend_on_their_number_alone(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    numbers = [(epoch, index, attempt) for epoch in (0, 3) for index in range(12) for attempt in (0, 1)]
    in_order = [flatten(open_sampler(cache).plan(*number)) for number in numbers]
    sampler = open_sampler(cache)
    with ThreadPoolExecutor(4) as pool:
        backwards = list(pool.map(lambda number: flatten(sampler.plan(*number)), reversed(numbers)))
    assert in_order == backwards[::-1]
    assert len({str(plan) for plan in in_order}) == len(numbers)
    assert flatten(open_sampler(cache, seed=1).plan(0, 0)) != in_order[0]


def test_every_case_comes_once_before_any_comes_again(make_cache: Callable[..., Any]) -> None:
    sampler = open_sampler(make_cache(5))
    turns = [[sampler.plan(0, 5 * turn + place).case_id for place in range(5)] for turn in range(6)]
    assert all(len(set(turn)) == 5 for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def test_several_patches_from_one_case(make_cache: Callable[..., Any]) -> None:
    sampler = open_sampler(make_cache(5), patches_per_case=3)
    plans = [sampler.plan(0, index) for index in range(15)]
    assert Counter(plan.case_id for plan in plans) == {f"case_{n}": 3 for n in range(5)}
    assert all(len({plan.case_id for plan in plans[start : start + 3]}) == 1 for start in range(0, 15, 3))
    assert len({plan.read_origin for plan in plans[:3]}) > 1


@pytest.mark.parametrize("fraction", [0.0, 1 / 3, 0.4, 1.0])
def test_a_third_of_any_run_of_samples_is_placed_on_tumour(make_cache: Callable[..., Any], fraction: float) -> None:
    sampler = open_sampler(make_cache(), foreground_fraction=fraction)
    chosen = np.array([sampler.plan(1, index).foreground is not None for index in range(300)])
    for length in (3, 12, 30):
        counts = np.convolve(chosen, np.ones(length), mode="valid")
        assert np.abs(counts - fraction * length).max() < 1
    assert abs(chosen.sum() - fraction * 300) < 1


def test_regions_take_turns(make_cache: Callable[..., Any]) -> None:
    sampler = open_sampler(make_cache(), foreground_fraction=1.0)
    regions = Counter(sampler.plan(0, index).foreground for index in range(600))
    assert set(regions) == {"WT", "TC", "ET"}
    # 200 each on average; more than five standard deviations off would be a bias.
    assert all(abs(count - 200) < 60 for count in regions.values())


def test_patches_stay_within_the_case_where_they_fit(make_cache: Callable[..., Any]) -> None:
    sampler = open_sampler(make_cache(2, (20, 6, 9)), patch_shape=(8, 10, 9))
    plans = [sampler.plan(0, index) for index in range(200)]
    origins = np.array([p.read_origin for p in plans if not (p.parameters["rotate_on"] or p.parameters["zoom_on"])])
    assert origins.min(axis=0).tolist() == [0, -4, 0]
    assert origins.max(axis=0).tolist() == [12, 0, 0]


@pytest.mark.parametrize("preset", ["nnunet", "nvidia", "light"])
def test_operations_come_as_often_as_their_table_says(preset: str) -> None:
    config = AUGMENTATION_PRESETS[preset]
    rng = np.random.default_rng(0)
    draws = [draw_intensities(rng, config, modalities=4, patch_shape=(64, 64, 64), slack=32) for _ in range(DRAWS)]
    turns = [draw_geometry(rng, config, dimensions=3) for _ in range(DRAWS)]
    # blur and low resolution spare a modality now and then, and so sometimes all four
    some_of_4 = {
        name: 1 - (1 - getattr(config, f"{name}_modality_probability")) ** 4 for name in ("blur", "low_resolution")
    }
    for name in ("noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma"):
        wanted = getattr(config, f"{name}_probability") * some_of_4.get(name, 1)
        check_frequency([bool(draw[f"{name}_on"]) for draw in draws], wanted)
    check_frequency([turn.rotates for turn in turns], config.rotation_probability)
    check_frequency([turn.scales for turn in turns], config.scale_probability)
    for axis in range(3):
        check_frequency([turn.mirror[axis] for turn in turns], config.mirror_probability)


def check_frequency(chosen: list[bool], probability: float) -> None:
    spread = np.sqrt(probability * (1 - probability) / len(chosen))
    assert abs(np.mean(chosen) - probability) <= 4.5 * spread


@pytest.mark.parametrize(
    "preset, name, low, high",
    [
        ("nnunet", "brightness", 0.75, 1.25),
        ("nnunet", "contrast", 0.75, 1.25),
        ("nnunet", "gamma", 0.7, 1.5),
        ("nnunet", "inverted_gamma", 0.7, 1.5),
        ("nnunet", "noise_sigma", -np.sqrt(0.1), np.sqrt(0.1)),
        ("nnunet", "blur_sigma", 0.5, 1.0),
        ("nnunet", "low_resolution_shape", 32, 64),
        ("nvidia", "brightness", 0.7, 1.3),
        ("nvidia", "contrast", 0.65, 1.5),
        ("nvidia", "noise_sigma", -0.33, 0.33),
        ("nvidia", "blur_sigma", 0.5, 1.5),
    ],
)
def test_drawn_values_fill_their_range(preset: str, name: str, low: float, high: float) -> None:
    rng = np.random.default_rng(1)
    config = AUGMENTATION_PRESETS[preset]
    values = np.array(
        [draw_intensities(rng, config, modalities=4, patch_shape=(64,) * 3, slack=32)[name] for _ in range(600)]
    )
    edge = 0.02 * (high - low)
    assert low - 1e-6 <= values.min() < low + edge
    assert high - edge < values.max() <= high + 1e-6
    if preset == "nnunet" and name in ("gamma", "contrast"):
        assert abs((values < 1).mean() - 0.5) < 0.05  # half below 1, though gamma's range reaches further above


def test_rotations_and_scales_fill_their_range() -> None:
    rng = np.random.default_rng(2)
    config = AugmentationConfig(rotation_probability=0, scale_probability=1, mirror_probability=0)
    scales = np.array([draw_geometry(rng, config, dimensions=3).linear[0, 0] for _ in range(400)])
    assert 0.7 <= scales.min() < 0.72
    assert 1.38 < scales.max() <= 1.4
    config = AugmentationConfig(rotation_probability=1, scale_probability=0, mirror_probability=0)
    flat = np.array([draw_geometry(rng, config, dimensions=2).linear for _ in range(400)])
    angles = np.degrees(np.arctan2(flat[:, 2, 1], flat[:, 1, 1]))
    assert -30 <= angles.min() < -29
    assert 29 < angles.max() <= 30
    np.testing.assert_allclose(flat[:, 0], np.tile([1, 0, 0], (400, 1)), atol=1e-12)


def test_a_changed_probability_leaves_the_other_draws_alone() -> None:
    usual = AugmentationConfig(noise_probability=0, blur_probability=0)
    noisy = AugmentationConfig(noise_probability=1, blur_probability=1)
    first, second = (
        draw_intensities(np.random.default_rng(3), config, modalities=4, patch_shape=(8, 8, 8), slack=32)
        for config in (usual, noisy)
    )
    assert not first["noise_on"]
    assert second["noise_on"]
    for name in ("brightness", "contrast", "gamma", "low_resolution_shape"):
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dimensions": 2}, "2 sides"),
        ({"dimensions": 4}, "dimensions must be 2"),
        ({"patch_shape": (0, 8, 8)}, "at least 1 voxel"),
        ({"global_batch_size": 0}, "global_batch_size"),
        ({"patches_per_case": 0}, "patches_per_case"),
        ({"patches_per_epoch": 1}, "patches_per_epoch must be at least one batch"),
        ({"foreground_fraction": 1.5}, "foreground_fraction"),
        ({"seed": -1}, "seed"),
    ],
)
def test_sampling_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplingConfig(**options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"noise_probability": 1.1}, "noise_probability"),
        ({"gamma_range": (2.0, 1.0)}, "low <= high"),
        ({"blur_sigma": (0.0, 1.0)}, "greater than 0"),
        ({"low_resolution_range": (0.5, 1.5)}, "not exceed 1"),
    ],
)
def test_augmentation_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AugmentationConfig(**options)


def test_scans_are_dropped_in_every_way_and_nothing_else_changes(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    plain, dropping = open_sampler(cache), open_sampler(cache, modality_dropout=0.5)
    names = {"normalise_scale", "normalise_offset", "noise_sigma"}
    kept = Counter()
    for index in range(600):
        one, other = plain.plan(0, index), dropping.plan(0, index)
        assert flatten_without(one, names) == flatten_without(other, names)
        scale = other.parameters["normalise_scale"]  # 1 of a scan that is kept
        kept[tuple(scale.tolist())] += 1
        np.testing.assert_array_equal(other.parameters["noise_sigma"], one.parameters["noise_sigma"] * scale)
    assert len(kept) == 15 and (0, 0, 0, 0) not in kept
    assert 250 < kept.pop((1, 1, 1, 1)) < 350
    assert min(kept.values()) >= 8  # of about 21 each


def test_a_shift_is_added_by_the_normalisation_and_nothing_else_changes(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    plain = open_sampler(cache)
    shifting = open_sampler(cache, AugmentationConfig(shift_probability=0.5, shift_range=(0.1, 0.2)))
    shifted = 0
    for index in range(200):
        one, other = plain.plan(0, index), shifting.plan(0, index)
        assert flatten_without(one, {"normalise_offset"}) == flatten_without(other, {"normalise_offset"})
        added = other.parameters["normalise_offset"] - one.parameters["normalise_offset"]
        assert not added.any() or len(np.unique(added)) == len(added)
        assert not added.any() or 0.0999 < added.min() < added.max() < 0.2001
        shifted += bool(added.any())
    assert 70 < shifted < 130


def test_a_single_scan_cannot_be_dropped(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    infos = [dataclasses.replace(cache.info(name), modalities=("flair",)) for name in cache.cases]
    sampling = SamplingConfig(patch_shape=(8, 8, 8), modality_dropout=0.1)
    with pytest.raises(InputError, match=r"modality_dropout 0\.1 wants cases of two scans or more, .* flair alone"):
        make_sampler(cache, infos, sampling, AUGMENTATION_PRESETS["none"], "zscore")
