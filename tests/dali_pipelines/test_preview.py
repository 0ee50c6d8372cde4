"""The contact sheet: written, every cell drawn, errors in one line."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from dali_pipelines.preview import PreviewConfig, draw_cell, draw_sheet, fullest_slice, main, rows_of_the_sheet
from storage import CohortStore, DecodedCaseCache, InputError, create_store
from storage.labels.conventions import EDEMA, ENHANCING, NECROTIC_CORE
from storage.labels.tasks import POST_TREATMENT_REGIONS, TASKS


@pytest.mark.slow
def test_the_sheet_has_a_cell_for_every_row_and_sample(phantom_store: CohortStore, tmp_path: Path) -> None:
    cache = DecodedCaseCache(phantom_store, tmp_path, max_bytes=10**9)
    config = PreviewConfig(samples=2, patch_shape=(16, 32, 32), modality="t1ce")
    figure = draw_sheet(cache, phantom_store.case_ids, config)
    assert len(figure.axes) == 2 * len(rows_of_the_sheet())
    assert [axes.get_title() for axes in figure.axes[:2]] != ["", ""]
    cells = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[::2]]
    assert all(np.ptp(cell) > 0 for cell in cells)
    changed = [row for row, cell in zip(rows_of_the_sheet(), cells, strict=True) if not np.array_equal(cell, cells[0])]
    assert set(changed) >= {"rotation", "scale", "noise", "blur", "brightness", "contrast", "low resolution", "gamma"}
    assert all(axes.collections for axes in figure.axes), "no tumour outlined"
    figure.savefig(tmp_path / "sheet.png", dpi=40)
    assert imread(tmp_path / "sheet.png").std() > 0.05


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(tmp_path / "none"), "--out", str(tmp_path / "sheet.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    for wrong in (
        ["--out", str(tmp_path)],
        ["--out", "/proc/none/x.png"],
        ["--out", "sheet.xyz"],
        ["--samples", "x"],
        [],
    ):
        assert main(["--store", "nowhere", *wrong]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and "nowhere" not in said
    with pytest.raises(InputError, match="sample"):
        PreviewConfig(samples=0)


def test_the_slice_shown_is_where_the_core_is_largest() -> None:
    regions = np.zeros((3, 4, 5, 5), np.uint8)
    regions[0, 1] = 1
    assert fullest_slice(regions) == 1
    regions[1, 3, 2, 2] = 1
    assert fullest_slice(regions) == 3
    alone = np.zeros((6, 4, 5, 5), np.uint8)
    alone[5, 2, 1, 1] = 1  # a cavity, and neither core nor whole tumour
    assert fullest_slice(alone) == 2


def test_a_modality_that_the_store_has_not_is_refused(tmp_path: Path) -> None:
    cache = DecodedCaseCache(create_store(tmp_path / "s.zarr", task=TASKS["men-rt"]), tmp_path, max_bytes=10**6)
    with pytest.raises(InputError, match="wanted a modality of the store, t1ce, got flair"):
        draw_sheet(cache, [], PreviewConfig(modality="flair"))


def test_the_inner_of_two_outlines_lies_on_top() -> None:
    regions = POST_TREATMENT_REGIONS
    label = np.zeros((20, 20), np.uint8)
    for value, low, high in ((EDEMA, 2, 18), (ENHANCING, 3, 17), (NECROTIC_CORE, 8, 12)):
        label[low:high, low:high] = value
    masks = np.stack([np.isin(label, region.labels) for region in regions]).astype(np.uint8)
    axes = Figure().subplots()
    draw_cell(axes, np.ones((1, 20, 20), np.float32), regions, masks, 0)
    colours = {tuple(np.round(region.colour, 6)): region.name for region in regions}
    drawn = [colours[tuple(np.round(each.get_edgecolor()[0][:3], 6))] for each in axes.collections]
    assert drawn == ["WT", "SNFH", "TC", "ET", "NETC"]
