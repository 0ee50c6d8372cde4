"""Pairs of files: which belong together, what their values mean, and on whose grid they are compared."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from ray_jobs.predicting.pair_scores import MakeScorer
from ray_jobs.predicting.pairs import find_pairs
from ray_jobs.predicting.score_config import ScoreConfig
from scoring import RULES_NAMES, RulesName, default_rules, tasks_of
from storage import TASKS, CohortStore, InputError

CASE = "BraTS-GLI-00057-000"
AFFINE = np.array([[-1.0, 0, 0, 80.5], [0, -2.0, 0, 119], [0, 0, 1.5, -60], [0, 0, 0, 1]])


def tumour(*, moved: int = 0) -> NDArray[np.uint8]:
    """An edema around an enhancing rim around a core, in values of 2023."""
    values = np.zeros((20, 22, 18), np.uint8)
    for value, margin in ((2, 3), (3, 5), (1, 6)):
        values[margin + moved : 16 - margin + moved, margin : 18 - margin, margin : 15 - margin] = value
    return values


def write(folder: Path, values: NDArray[np.uint8], name: str = f"{CASE}.nii.gz", affine: Any = AFFINE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), folder / name)
    return folder / name


def score(folder: Path, rules: RulesName = "plain", **told: Any) -> Mapping[str, Any]:
    config = ScoreConfig(
        prediction=str(folder / "p"), label=str(folder / "l"), output="o", rules=rules, **({"task": "gli"} | told)
    )
    pairs = find_pairs(config)
    assert not pairs.refused
    (case_id,) = pairs.predictions
    return MakeScorer(pairs=pairs, rules=rules, trust_grid=config.trust_grid)()(case_id).record


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with a prediction a voxel off (p) and a label (l)."""
    write(tmp_path / "p", tumour(moved=1))
    write(tmp_path / "l", tumour(), f"{CASE}-seg.nii.gz")
    return tmp_path


def test_a_prediction_in_another_order_is_turned_by_its_header(pair: Path) -> None:
    wanted = score(pair)
    assert 0.5 < wanted["regions"]["WT"]["dice"] < 1
    image = nib.load(pair / "p" / f"{CASE}.nii.gz")
    turned = image.as_reoriented(np.array([[2, 1], [0, -1], [1, -1]]))
    assert turned.shape != image.shape
    nib.save(turned, pair / "p" / f"{CASE}.nii.gz")
    record = score(pair)
    assert [note.partition(":")[0] for note in record["notes"]] == ["prediction turned by its header"]
    for region, scores in record["regions"].items():
        assert scores == pytest.approx(wanted["regions"][region]), region


def test_plain_rules_take_the_sides_of_voxels_from_where_the_label_lies(pair: Path) -> None:
    image = nib.load(pair / "p" / f"{CASE}.nii.gz")
    image.header["pixdim"][1:4] = 1
    image.header.set_sform(AFFINE, code=1)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), pair / "p" / f"{CASE}.nii.gz")
    assert nib.load(pair / "p" / f"{CASE}.nii.gz").header.get_zooms() == (1, 1, 1)
    voxels = np.count_nonzero(tumour())
    assert score(pair)["regions"]["WT"]["true_mm3"] == voxels * 3  # 1 x 2 x 1.5 mm
    assert score(pair, "2023")["regions"]["WT"]["true_mm3"] == voxels  # as the program reads it


@pytest.mark.parametrize("rules", ["plain", "2026", "2023", "2024", "2025"])
def test_only_programs_that_took_no_header_compare_what_lies_elsewhere(rules: RulesName, pair: Path) -> None:
    elsewhere = AFFINE.copy()
    elsewhere[2, 2] = 3
    write(pair / "p", tumour(moved=1), affine=elsewhere)
    if rules in ("plain", "2026"):
        with pytest.raises(InputError, match=r"its affine differs .* say --trust-grid"):
            score(pair, rules)
        assert score(pair, rules, trust_grid=True)["regions"]["WT"]["true_mm3"] == np.count_nonzero(tumour()) * 3
        return
    record = score(pair, rules)
    assert record["notes"][0].startswith("voxels taken to lie alike whatever the header says: ")
    assert record["regions"]["WT"]["true_mm3"] == np.count_nonzero(tumour()) * 6  # by the prediction's sides


@pytest.mark.parametrize("rules", RULES_NAMES)
def test_another_shape_is_never_compared(rules: RulesName, pair: Path) -> None:
    write(pair / "p", tumour()[:, :, 1:])
    with pytest.raises(InputError, match=rf"{CASE}.nii.gz: shape \(20, 22, 17\)"):
        score(pair, rules)


@pytest.mark.parametrize("rules", ["plain", "2026", "2023", "2024", "2025"])
def test_values_of_another_task_are_named(rules: RulesName, pair: Path) -> None:
    values = tumour(moved=1)
    write(pair / "p", np.where(values == 3, np.uint8(4), values))
    if rules in ("plain", "2026"):
        with pytest.raises(InputError, match=r"values of another task: 4, wanted 0, 1, 2, 3 \(gli-2023\)"):
            score(pair, rules)
        return
    record = score(pair, rules)
    (note,) = record["notes"]
    said = f"as the rules of BraTS {rules} do; say --task if they are another's: 4 in prediction {CASE}.nii.gz"
    assert note.endswith(said)
    assert record["regions"]["ET"]["predicted_mm3"] == 0 and record["regions"]["TC"]["dice"] > 0


def test_names_say_the_task_where_they_leave_one(pair: Path) -> None:
    assert score(pair, task=None)["regions"].keys() == {"WT", "TC", "ET"}
    for folder, end in (("p", ""), ("l", "-seg")):
        (pair / folder / f"{CASE}{end}.nii.gz").rename(pair / folder / f"BraTS-PED-00001-000{end}.nii.gz")
    with pytest.raises(InputError, match=r"wanted --task, .* leave ped-2023, ped-2024"):
        score(pair, task=None)
    assert score(pair, task="ped-2023")["regions"].keys() == {"WT", "TC", "ET"}
    assert len(score(pair, task="ped")["regions"]) == 6


def test_a_compressed_tar_and_a_folder_without_any_are_said(pair: Path) -> None:
    with tarfile.open(pair / "p.tar.gz", "w:gz") as archive:
        archive.add(pair / "p", "p")
    for place, said in (("p.tar.gz", "decompress it to a .tar"), ("none", "call them X_seg.nii.gz")):
        (pair / "none").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=f"wanted --prediction with .* {said}"):
            find_pairs(ScoreConfig(prediction=str(pair / place), label=str(pair / "l"), output="o"))


def test_labels_that_two_files_could_be_are_told(pair: Path) -> None:
    write(pair / "l" / "again", tumour(), f"{CASE}-seg.nii.gz")
    config = ScoreConfig(prediction=str(pair / "p"), label=str(pair / "l"), output="o", task="gli")
    pairs = find_pairs(config)
    (refusal,) = [str(each) for each in pairs.refused if each.case_id == CASE and "labels" in each.finding]
    assert "2 labels have its name" in refusal and not pairs.predictions


def test_a_stores_labels_are_compared_as_their_files_are(
    phantom_store: CohortStore, phantom_source: Path, tmp_path: Path
) -> None:
    case_id = phantom_store.case_ids[0]
    (label,) = phantom_source.rglob(f"{case_id}_seg.nii.gz")
    image = nib.load(label)
    rolled = np.roll(np.asanyarray(image.dataobj), 2, axis=1)
    write(tmp_path, rolled.astype(np.uint8), f"{case_id}.nii.gz", image.affine)
    found = []
    for place in (phantom_store.uri, str(label.parent)):
        pairs = find_pairs(ScoreConfig(prediction=str(tmp_path), label=place, output="o"))
        assert pairs.task.name == "gli-2021"
        found.append(MakeScorer(pairs=pairs, rules="2023", trust_grid=False)()(case_id).record["regions"])
    assert found[0] == found[1] and 0 < found[0]["WT"]["dice"] < 1
    with pytest.raises(InputError, match=r"wanted --task gli-2021, which .* got ped-2024"):
        find_pairs(ScoreConfig(prediction=str(tmp_path), label=phantom_store.uri, output="o", task="ped"))


def test_every_task_has_rules_that_know_it() -> None:
    assert {name: default_rules(task) for name, task in TASKS.items()} == {
        **dict.fromkeys(("gli-2013", "gli-2021", "msd", "upenn-gbm", "ucsf-pdgm"), "plain"),
        **dict.fromkeys(("gli-2023", "ssa", "men", "met-2023", "ped-2023"), "2023"),
        **dict.fromkeys(("gli-2024", "met-2024", "ped-2024", "men-rt"), "2024"),
        "goat": "2026",
    }
    assert all(name in tasks_of(default_rules(task)) for name, task in TASKS.items())
