"""A contact sheet of what training sees: `python -m dali_pipelines.preview --store S --out sheet.png`.

Rows are augmentations, each alone at a strength that can be seen and all together as training draws them; columns are
samples, the same place in the same case all the way down. Every cell shows the slice through the tumour's middle, its
regions outlined.
M modalities, R regions, D H W voxels z, y, x.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dali_pipelines.augmentation import NNUNET, NONE, AugmentationConfig
from dali_pipelines.loader import PatchLoader
from dali_pipelines.sampling import SamplingConfig
from storage import DecodedCaseCache, InputError, Region, open_store
from storage.store.objects import refuse_unwritable

_CACHE_BYTES = 8 * 2**30

# Inches: a cell, the column of labels, the head without its legend, a line of that, its samples of colour, a letter.
_CELL, _MARGIN, _HEAD, _LINE, _HANDLE, _LETTER = 1.6, 1.2, 0.45, 0.17, 0.6, 0.062


@dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """What the sheet shows. `modality` is one of the store's, None its first; `patch_shape` in voxels z, y, x."""

    samples: int = 6
    modality: str | None = None
    patch_shape: tuple[int, int, int] = (96, 128, 128)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"wanted at least one sample, got {self.samples}")


def rows_of_the_sheet() -> dict[str, AugmentationConfig]:
    """Label -> what the row applies: each operation for certain and near the strong end of nnU-Net's range."""
    return {
        "as stored": NONE,
        "mirror": replace(NONE, mirror_probability=0.5),
        "rotation": replace(NONE, rotation_probability=1.0),
        "scale": replace(NONE, scale_probability=1.0),
        "noise": replace(NONE, noise_probability=1.0, noise_range=(0.05, 0.1)),
        "blur": replace(NONE, blur_probability=1.0, blur_modality_probability=1.0, blur_sigma=(0.9, 1.0)),
        "brightness": replace(NONE, brightness_probability=1.0, brightness_range=(1.2, 1.25)),
        "contrast": replace(NONE, contrast_probability=1.0, contrast_range=(1.2, 1.25)),
        "shift": replace(NONE, shift_probability=1.0),
        "low resolution": replace(
            NONE,
            low_resolution_probability=1.0,
            low_resolution_modality_probability=1.0,
            low_resolution_range=(0.5, 0.6),
        ),
        "gamma": replace(NONE, gamma_probability=1.0, gamma_range=(1.4, 1.5)),
        "inverted gamma": replace(NONE, inverted_gamma_probability=1.0, gamma_range=(1.4, 1.5)),
        "all, as drawn": NNUNET,
    }


def draw_sheet(cache: DecodedCaseCache, case_ids: Sequence[str], config: PreviewConfig) -> Figure:
    """The sheet as a figure; raises InputError for unlabelled cases, and for a modality that the store has not."""
    rows, regions, modalities = rows_of_the_sheet(), cache.task.regions, cache.store.settings.modalities
    modality = config.modality or modalities[0]
    if modality not in modalities:
        raise InputError(f"wanted a modality of the store, {', '.join(modalities)}, got {modality}")
    scan = modalities.index(modality)
    sampling = SamplingConfig(
        patch_shape=config.patch_shape,
        global_batch_size=config.samples,
        patches_per_epoch=config.samples,
        foreground_fraction=1.0,
        seed=config.seed,
    )
    lines = [Line2D([], [], color=region.colour, label=f"{region.name} {region.title}") for region in regions]
    width = _CELL * config.samples + _MARGIN
    columns = max(1, int(width / (_HANDLE + _LETTER * max(len(str(line.get_label())) for line in lines))))
    head = _HEAD + _LINE * math.ceil(len(lines) / columns)
    height = _CELL * len(rows) + head
    figure = Figure(figsize=(width, height), facecolor="black")
    grid = figure.subplots(len(rows), config.samples, squeeze=False)
    figure.subplots_adjust(
        left=_MARGIN / width, right=0.998, top=1 - head / height, bottom=0.004, wspace=0.03, hspace=0.03
    )
    for row, (label, augmentation) in enumerate(rows.items()):
        with PatchLoader(cache, case_ids, sampling=sampling, augmentation=augmentation, ready_batches=1) as loader:
            batch = next(iter(loader))
        for column, axes in enumerate(grid[row]):
            image_MDHW, regions_RDHW = batch.image[column].numpy(), batch.regions[column].numpy()
            level = fullest_slice(regions_RDHW)
            draw_cell(axes, image_MDHW[:, level], regions, regions_RDHW[:, level], scan)
            if row == 0:
                name = batch.case_ids[column]
                shown = name if len(name) <= 22 else f"…{name[-21:]}"  # the telling end
                axes.set_title(shown, color="0.8", fontsize=7, pad=3)
        grid[row, 0].set_ylabel(label, color="white", fontsize=9, rotation=0, ha="right", va="center", labelpad=6)
    title = f"{modality}, axial; the patient's right is on the left, as stored"
    points = min(9.0, 72 * width / (0.6 * len(title)))
    figure.text(0.01, 1 - 0.07 / height, title, color="white", fontsize=points, va="top")
    figure.legend(
        handles=lines,
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - 0.2 / height),
        borderaxespad=0.0,
        labelspacing=0.3,
        ncols=columns,
        fontsize=8,
        frameon=False,
        labelcolor="white",
    )
    return figure


def fullest_slice(regions_RDHW: NDArray[np.uint8]) -> int:
    """Where a reader would look first: most of the second region, the core, else of the whole tumour, else of all."""
    areas = regions_RDHW.sum(axis=(2, 3), dtype=np.int64)
    core, whole = areas[min(1, len(areas) - 1)], areas[0]
    return int(np.argmax(next((area for area in (core, whole) if area.any()), areas.sum(axis=0))))


def draw_cell(
    axes: "matplotlib.axes.Axes",
    image_MHW: NDArray[np.float32],
    regions: Sequence[Region],
    masks_RHW: NDArray[np.uint8],
    scan: int,
) -> None:
    """One slice of a scan, regions outlined, in a fixed grey scale, so that brightness shows.

    What is exactly 0 stays black: all around a brain; of scans that are not skull-stripped what lies beyond their edge.
    """
    image_HW = image_MHW[scan]
    outside_HW = (image_MHW == 0).all(axis=0)
    # z-scores: the brain lies about 0; a window that moved with the patch would hide what was changed.
    grey = np.ma.masked_array(image_HW, outside_HW)
    axes.set_facecolor("black")
    axes.imshow(grey, cmap="gray", vmin=-2.5, vmax=4.5, interpolation="nearest")
    seen = [(region, mask_HW) for region, mask_HW in zip(regions, masks_RHW, strict=True) if mask_HW.any()]
    # The widest first: where two touch, the inner one's outline is seen whole.
    for region, mask_HW in sorted(seen, key=lambda each: -int(np.ptp(np.argwhere(each[1]), axis=0).prod())):
        axes.contour(mask_HW, levels=[0.5], colors=[region.colour], linewidths=0.6)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m dali_pipelines.preview", description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="a converted cohort, path or URL")
    parser.add_argument("--out", required=True, type=Path, help="the image file to write")
    parser.add_argument("--samples", type=int, default=PreviewConfig.samples, help="columns")
    parser.add_argument("--modality", help="of the store's; by default its first")
    parser.add_argument(
        "--patch", type=int, nargs=3, metavar="SIDE", default=PreviewConfig.patch_shape, help="voxels along z, y, x"
    )
    parser.add_argument("--seed", type=int, default=PreviewConfig.seed)
    parser.error = refuse  # type: ignore[method-assign]
    try:
        options = parser.parse_args(arguments)
        refuse_unwritable(options.out.parent)
        known = Figure().canvas.get_supported_filetypes()
        if options.out.suffix.lstrip(".").lower() not in known:
            raise InputError(f"wanted --out with one of the endings {', '.join(sorted(known))}, got {options.out}")
        config = PreviewConfig(
            samples=options.samples,
            modality=options.modality,
            patch_shape=tuple(options.patch),
            seed=options.seed,
        )
        store = open_store(options.store)
        labelled = [info.case_id for info in store.infos() if info.labelled]
        with tempfile.TemporaryDirectory() as folder:
            sheet = draw_sheet(DecodedCaseCache(store, Path(folder), max_bytes=_CACHE_BYTES), labelled, config)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        sheet.savefig(options.out, dpi=150, facecolor=sheet.get_facecolor())
    except (InputError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 0


def refuse(message: str) -> NoReturn:
    """Raise what the parser has against a command line."""
    raise InputError(f"{message}; --help lists the flags")


if __name__ == "__main__":
    sys.exit(main())
