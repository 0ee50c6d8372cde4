"""Where voxels come from: the drawn map, the block that is read for it, and the graph, against scipy on whole cases."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from dali_pipelines import AUGMENTATION_PRESETS, AugmentationConfig, PatchPlan, SamplingConfig
from dali_pipelines.geometry import rotation
from dali_pipelines.graph import GraphConfig, build_patch_pipeline
from dali_pipelines.sampling import PatchSampler
from dali_pipelines.source import SampleReader

SHAPES: dict[int, tuple[int, ...]] = {3: (10, 14, 12), 2: (14, 12)}
# Larger than a case along z, or in all axes: what lies outside is zero.
TALL, LARGE = (26, 14, 12), (34, 38, 44)
UNCHANGED = (np.ones(4, np.float32), np.zeros(4, np.float32))


def geometry_alone(*, rotate: float, scale: float) -> AugmentationConfig:
    none = {name: 0.0 for name in vars(AUGMENTATION_PRESETS["none"]) if name.endswith("_probability")}
    chosen = {"rotation_probability": rotate, "scale_probability": scale, "mirror_probability": 0.5}
    return AugmentationConfig(**{**none, **chosen})  # type: ignore[arg-type]


def run(
    cache: Any, augmentation: AugmentationConfig, size: tuple[int, ...], samples: int, **options: Any
) -> list[tuple[PatchPlan, np.ndarray, np.ndarray]]:
    """(plan, image, regions) of the first samples, with intensities as stored."""
    sampling = SamplingConfig(dimensions=len(size), patch_shape=size, seed=11, **options)  # type: ignore[arg-type]
    infos = [cache.info(name) for name in sorted(cache.cases)]
    coefficients = {info.case_id: UNCHANGED for info in infos}
    sampler = PatchSampler(infos, cache.foreground, coefficients, sampling=sampling, augmentation=augmentation)
    reader = SampleReader(cases=cache, sampler=sampler, dimensions=len(size), dtype=np.int16, on_bad_case="raise")
    config = GraphConfig(
        augmentation=augmentation,
        size=size,
        batch_size=samples,
        modalities=4,
        integers=True,
        regions=((1, 2, 3), (1, 3), (3,)),
    )
    pipeline = build_patch_pipeline(config)
    pipeline.build()
    read = [reader.read(0, index) for index in range(samples)]
    pipeline.feed_input("image", [sample.image for sample in read])
    pipeline.feed_input("label", [sample.label for sample in read])
    names = ["normalise_scale", "normalise_offset", "mirror"]
    names += ["rotate_on", "warp_matrix"] if augmentation.rotation_probability else []
    names += ["zoom_on", "zoom_start", "zoom_end"] if augmentation.scale_probability else []
    for name in names:
        pipeline.feed_input(name, [sample.plan.parameters[name] for sample in read])
    image, regions = pipeline.run()
    return [
        (sample.plan, np.array(one), np.array(masks)) for sample, one, masks in zip(read, image, regions, strict=True)
    ]


def places_in_case(plan: PatchPlan, size: tuple[int, ...]) -> np.ndarray:
    """(3, D, H, W): where in the case the plan says that each voxel of the patch comes from; voxel centres at + 0.5."""
    block = (1,) * (3 - len(size)) + size
    grid = np.stack(np.meshgrid(*(np.arange(side) + 0.5 for side in block), indexing="ij"))
    origin = np.array(plan.read_origin).reshape(3, 1, 1, 1)
    if plan.parameters["rotate_on"]:
        matrix = plan.parameters["warp_matrix"].astype(float)
        if len(size) == 2:
            full = np.eye(3, 4)
            full[np.ix_([0, 1], [0, 1, 3])] = matrix
            matrix = full
        linear, offset = matrix[::-1, 2::-1], matrix[::-1, 3].reshape(3, 1, 1, 1)
        return np.tensordot(linear, grid, axes=1) + offset + origin
    if plan.parameters["zoom_on"]:
        start, end = np.zeros(3), np.ones(3)
        start[-len(size) :], end[-len(size) :] = plan.parameters["zoom_start"], plan.parameters["zoom_end"]
        step = (end - start) / np.array(block)
        return start.reshape(3, 1, 1, 1) + grid * step.reshape(3, 1, 1, 1) + origin
    flags = np.zeros(3, bool)
    flags[-len(size) :] = plan.parameters["mirror"]
    mirrored = np.where(flags.reshape(3, 1, 1, 1), np.array(block).reshape(3, 1, 1, 1) - grid, grid)
    return mirrored + origin


@pytest.mark.parametrize(
    "size", [SHAPES[3], SHAPES[2], TALL, LARGE, LARGE[1:]], ids=["patch", "slice", "tall", "large", "large slice"]
)
def test_patches_show_the_case_where_the_plan_says(make_cache: Callable[..., Any], size: tuple[int, ...]) -> None:
    cache = make_cache(3)
    kinds = set()
    for plan, image, regions in run(cache, geometry_alone(rotate=0.4, scale=0.5), size, samples=24):
        kinds.add((bool(plan.parameters["rotate_on"]), bool(plan.parameters["zoom_on"])))
        case = cache.cases[plan.case_id]
        places = places_in_case(plan, size)
        for m in range(4):
            # "grid-constant": voxels beyond the border are 0 and take part in the interpolation.
            wanted = ndimage.map_coordinates(
                case.image_MDHW[m].astype(float), places - 0.5, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(image[m].reshape(wanted.shape), wanted, atol=0.05)
        masks = np.stack([np.isin(case.label_DHW, labels) for labels in ((1, 2, 3), (1, 3), (3,))])
        # Places on a voxel's border may round either way.
        sure = (np.abs(places - np.rint(places)) > 1e-3).all(axis=0)
        nearest = np.stack([pick(mask, np.floor(places).astype(int)) for mask in masks])
        np.testing.assert_array_equal(regions.reshape(nearest.shape)[:, sure], nearest[:, sure])
        assert sure.mean() > 0.5
    assert kinds == {(True, False), (False, True), (False, False)}


@pytest.mark.parametrize("size", [LARGE, LARGE[1:]], ids=["patch", "slice"])
def test_a_zoom_by_one_changes_nothing(make_cache: Callable[..., Any], size: tuple[int, ...]) -> None:
    """DALI copies rows where an axis keeps its scale, by another way than where it does not."""
    zoomed = dataclasses.replace(geometry_alone(rotate=0, scale=1), scale_range=(1.0, 1.0))
    cache = make_cache(2)
    left_alone = run(cache, geometry_alone(rotate=0, scale=0), size, samples=8)
    for (_, image, regions), (_, as_read, masks) in zip(run(cache, zoomed, size, samples=8), left_alone, strict=True):
        np.testing.assert_array_equal(regions, masks)
        np.testing.assert_allclose(image, as_read, atol=0.05)


def pick(mask: np.ndarray, index: np.ndarray) -> np.ndarray:
    inside = np.all([(i >= 0) & (i < side) for i, side in zip(index, mask.shape, strict=True)], axis=0)
    clipped = [np.clip(i, 0, side - 1) for i, side in zip(index, mask.shape, strict=True)]
    return mask[tuple(clipped)] & inside


def test_image_and_label_come_from_the_same_places(make_cache: Callable[..., Any]) -> None:
    """An image that holds its own coordinates says where each voxel came from; the label must be of that voxel."""
    cache = make_cache(1)
    shape = (20, 24, 22)
    ramps = np.stack([*np.meshgrid(*(np.arange(side) * 64 + 3200 for side in shape), indexing="ij"), np.ones(shape)])
    label = np.random.default_rng(4).integers(0, 4, shape).astype(np.uint8)
    cache.cases["case_0"] = type(cache.cases["case_0"])(ramps.astype(np.int16), label)
    for plan, image, regions in run(cache, geometry_alone(rotate=0.5, scale=0.5), SHAPES[3], samples=16):
        whole = image[3] > 0.999  # the voxels that lie wholly within the case
        places = (image[:3] - 3200) / 64
        sure = whole & (np.abs(places - np.floor(places) - 0.5) > 1e-2).all(axis=0)
        voxels = tuple(np.rint(places[:, sure]).astype(int))
        wanted = np.stack([np.isin(label[voxels], labels) for labels in ((1, 2, 3), (1, 3), (3,))])
        np.testing.assert_array_equal(regions[:, sure], wanted, err_msg=str(plan))
        assert sure.mean() > 0.1


def test_a_patch_placed_on_tumour_shows_it(make_cache: Callable[..., Any]) -> None:
    """Also where the patch was moved back into the case and the zoom would then have cut the chosen voxel off."""
    small = (6, 6, 6)
    results = run(make_cache(4), geometry_alone(rotate=0.5, scale=0.5), small, samples=32, foreground_fraction=1.0)
    for plan, _, regions in results:
        assert plan.foreground is not None
        assert regions[["WT", "TC", "ET"].index(plan.foreground)].any()


def test_rotation_turns_and_keeps_lengths() -> None:
    quarter = np.pi / 2
    np.testing.assert_allclose(rotation(np.array([quarter, 0, 0])) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation(np.array([0, quarter, 0])) @ [1, 0, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation(np.array([0, 0, quarter])) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    matrix = rotation(np.array([0.3, -0.2, 0.5]))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_only_the_voxels_that_the_map_needs_are_read(make_cache: Callable[..., Any]) -> None:
    sampling = SamplingConfig(patch_shape=(6, 6, 6), foreground_fraction=0)
    cache = make_cache(1, (60, 60, 60))
    infos = [cache.info("case_0")]
    sampler = PatchSampler(
        infos,
        cache.foreground,
        {"case_0": UNCHANGED},
        sampling=sampling,
        augmentation=geometry_alone(rotate=1, scale=1),
    )
    sides = np.array([sampler.plan(0, index).read_shape for index in range(200)])
    # A patch's diagonal, scaled by at most 1.4, with one voxel of interpolation and one of rounding at either end.
    assert sides.max() <= np.ceil(6 * np.sqrt(3) * 1.4) + 4
    assert sides.min() >= 6 * 0.7
