"""A case's task is told from names and labels together, or the cohort is refused with the readings and the flag."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage import TASKS, Case, InputError, find_cases
from storage.labels.conventions import BRATS_123, BRATS_124, BRATS_2013, custom_convention
from storage.scans.case import Naming
from storage.scans.task_detection import read_label_values, settle_tasks


def cohort(naming: Naming, *case_ids: str) -> list[Case]:
    return [Case(case_id=case_id, subject=case_id, files={}, naming=naming) for case_id in case_ids]


def settle(values: Mapping[str, Sequence[int] | None], naming: Naming = Naming.HYPHEN, **told: Any) -> Any:
    return settle_tasks(cohort(naming, *values), values, **told)


@pytest.mark.parametrize(
    ("naming", "case_id", "values", "expected"),
    [
        (Naming.UNDERSCORE, "Brats18_X_1", (1, 2, 4), "gli-2021"),
        (Naming.UNDERSCORE, "Brats18_X_1", (2,), "gli-2021"),
        (Naming.UNDERSCORE, "BraTS20_Training_001", None, "gli-2021"),
        (Naming.UNDERSCORE, "case7", (1, 2, 4), "gli-2021"),
        (Naming.UNDERSCORE, "Brats18_X_1", (1, 2, 4, 77), "gli-2021"),
        (Naming.UNDERSCORE, "UPENN-GBM-00001_11", (1, 2, 4), "upenn-gbm"),
        (Naming.UNDERSCORE, "UCSF-PDGM-0004", (4,), "ucsf-pdgm"),
        (Naming.HYPHEN, "BraTS-GLI-00000-000", (1, 2, 3), "gli-2023"),
        (Naming.HYPHEN, "BraTS-GLI-00000-000", None, "gli-2023"),
        (Naming.HYPHEN, "BraTS-GLI-00000-000", (1, 2, 3, 4), "gli-2024"),
        (Naming.HYPHEN, "BraTS-GLI-00000-100", (4,), "gli-2024"),
        (Naming.HYPHEN, "BraTS-GLI-123-101", None, "gli-2024"),
        (Naming.HYPHEN, "BraTS-GLI-123-0101", (1, 2), "gli-2024"),
        (Naming.HYPHEN, "BraTS-MET-00000-000", (1, 3, 4), "met-2024"),
        (Naming.HYPHEN, "BraTS-PED-00000-000", (4,), "ped-2024"),
        (Naming.HYPHEN, "BraTS-SSA-00000-000", (1, 3), "ssa"),
        (Naming.HYPHEN, "BraTS-GoAT-00000", (1, 3), "goat"),
        (Naming.UNDERSCORE, "BraTS-MEN-RT-0001-1", (1,), "men-rt"),
        (Naming.MSD, "BRATS_001", (1, 2, 3), "msd"),
        (Naming.UNDERSCORE, "BRATS_001", (1, 2, 3), "msd"),
        (Naming.UNDERSCORE, "brats_001", (1, 2, 4), "gli-2021"),
    ],
)
def test_what_can_be_told(naming: Naming, case_id: str, values: Sequence[int] | None, expected: str) -> None:
    settled = settle({case_id: values}, naming)
    assert settled.task is TASKS[expected] and settled.cases[0].task == expected
    assert settled.cases[0].convention is TASKS[expected].convention


@pytest.mark.parametrize(
    ("naming", "case_id", "values", "said"),
    [
        (Naming.UNDERSCORE, "BraTS2021_00006", (1, 2, 3), r"--label-map .* or which task"),
        (Naming.UNDERSCORE, "Brats18_X_1", (1, 2, 3, 4), "by their names the cases are gli-2021"),
        (Naming.HYPHEN, "BraTS-GLI-00000-000", (1, 2, 4), "by their names the cases are gli-2023"),
        (Naming.HYPHEN, "BraTS-PED-00000-000", (1, 2, 3), "2 ways.*--task ped-2023 or ped-2024"),
        (Naming.HYPHEN, "BraTS-PED-00000-000", None, "--task ped-2023 or ped-2024"),
        (Naming.HYPHEN, "BraTS-MET-00000-000", (1, 2, 3), "--task met-2023 or met-2024"),
        (Naming.HYPHEN, "case7", (1, 2, 3), "--task gli-2023 or"),
        (Naming.UNDERSCORE, "BRATS_001", (1, 2), "2 ways.*--task msd or gli-2021"),  # cut, or renamed
        (Naming.HYPHEN, "BRATS_001", (1, 2, 3), "--task msd or gli-2023"),
        (Naming.TOLD, "BRATS_001", (1, 2, 3), "say which with --task"),
        (Naming.TOLD, "pat0003", (1, 2, 4), "say which with --task"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    naming: Naming, case_id: str, values: Sequence[int] | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        settle({case_id: values}, naming)


def test_the_refusal_names_both_readings_and_a_case_of_each_value() -> None:
    both = "1 necrotic or non enhancing core, 2 edema, 3 enhancing.* or .*1 enhancing, 2 non enhancing tumour, 3 cystic"
    with pytest.raises(InputError, match=f"{both}.*1 in 2 cases, such as BraTS-PED-1-000; 3 in 1 case"):
        settle({"BraTS-PED-1-000": (1,), "BraTS-PED-2-000": (1, 3)})


def test_the_flag_settles_between_readings_and_never_contradicts_a_name() -> None:
    values = {"BraTS-PED-1-000": (1, 2, 3)}
    assert settle(values, told=TASKS["ped-2024"]).task is TASKS["ped-2024"]
    mixed = settle({**values, "BraTS-GLI-1-000": (1, 2, 3)}, told=TASKS["ped-2024"])
    assert [case.case_id for case in mixed.cases] == ["BraTS-PED-1-000"]
    (refusal,) = mixed.refused
    assert (refusal.case_id, refusal.finding) == ("BraTS-GLI-1-000", "its name says gli-2023, --task says ped-2024")
    assert settle({"BraTS-GLI-1-000": (1,)}, told=TASKS["goat"]).refused == ()  # the same values and regions
    rewritten = settle(
        {"BraTS2021_00001": (1, 2, 3)}, Naming.UNDERSCORE, label_map=custom_convention({1: 1, 2: 2, 3: 3})
    )
    assert (rewritten.task.name, rewritten.cases[0].convention.name) == ("gli-2021", "custom-1:1,2:2,3:3")


def test_what_the_user_says_of_values_counts_more_than_a_dataset_json_and_never_more_than_labels_can_be() -> None:
    (case,) = cohort(Naming.NNUNET, "B_000")
    stated = replace(case, convention=custom_convention({1: 2, 2: 1, 3: 3}))
    with_ignored = custom_convention({1: 2, 2: 1, 3: 3, 4: 0})
    assert settle_tasks([stated], {}, label_map=with_ignored).cases[0].convention is with_ignored
    with pytest.raises(InputError, match=r"--task says men-rt .*, dataset.json says 1 edema"):
        settle_tasks([stated], {}, told=TASKS["men-rt"])
    with pytest.raises(InputError, match=r"--label-map: no task has regions of the stored labels .4, 5. together"):
        settle_tasks([case], {}, label_map=custom_convention({1: 4, 2: 5}))


def test_a_segmentation_that_is_called_a_gtv_is_not_taken_for_a_core() -> None:
    for naming, case_id in ((Naming.HYPHEN, "BraTS-MEN-00001-000"), (Naming.UNDERSCORE, "case7")):
        (case,) = cohort(naming, case_id)
        gtv = replace(case, label=Path(f"{case_id}_GTV.nii.gz"))
        with pytest.raises(InputError, match=r"2 ways: .* or men-rt"):
            settle_tasks([gtv], {case_id: (1,)})
        assert settle_tasks([gtv], {case_id: (1,)}, told=TASKS["men-rt"]).task is TASKS["men-rt"]
        assert settle_tasks([gtv], {case_id: (1, 2)}).task.region_names == ("WT", "TC", "ET")


def test_a_flag_whose_store_holds_the_other_years_too_is_to_be_left_out() -> None:
    before = settle({"BraTS-GLI-1-000": (1, 3), "BraTS-GLI-1-100": (1, 4)}, told=TASKS["gli-2024"]).refused
    assert [refusal.remedy.startswith("leave out --task;") for refusal in before] == [True]
    apart = settle({"BraTS-GLI-1-000": (1, 3), "BraTS-GLI-1-100": (1, 4)}, told=TASKS["gli-2023"]).refused
    assert [refusal.remedy.startswith("convert it apart;") for refusal in apart] == [True]


@pytest.mark.parametrize(
    ("naming", "values", "told", "said"),
    [
        (Naming.HYPHEN, {"BraTS-PED-1-0": (1, 2), "BraTS-PED-2-0": (1, 4)}, "ped-2023", r"with --task \(ped-2024\)"),
        (Naming.HYPHEN, {"BraTS-MET-1-000": (1, 2, 3, 4)}, "met-2023", r"with --task \(met-2024\)"),
        (Naming.TOLD, {"pat1": (1, 2), "pat2": (1, 2, 3)}, "gli-2021", "3 in 1 case, such as pat2; name what"),
        (Naming.UNDERSCORE, {"pat1": (1, 2, 4)}, "men-rt", r"--task says men-rt \(1 gross tumour volume\), found"),
    ],
)
def test_a_flag_that_the_values_contradict_is_refused(
    naming: Naming, values: Mapping[str, Sequence[int]], told: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):  # cases without the odd value would be read with the wrong meaning
        settle(values, naming, told=TASKS[told])


def test_years_of_one_meaning_join_each_by_its_own_names() -> None:
    cases = [*cohort(Naming.UNDERSCORE, "BraTS2021_00001"), *cohort(Naming.HYPHEN, "BraTS-GLI-00001-000")]
    settled = settle_tasks(cases, {"BraTS2021_00001": (1, 2, 4), "BraTS-GLI-00001-000": (1, 2, 3)})
    assert [case.task for case in settled.cases] == ["gli-2021", "gli-2023"]
    assert settled.task.region_names == ("WT", "TC", "ET")
    after = settle({"BraTS-GLI-00001-000": (1, 2, 3), "BraTS-GLI-00001-100": (1, 2, 3, 4)})
    assert after.task is TASKS["gli-2024"]


def test_tasks_that_mean_something_else_are_not_mixed() -> None:
    with pytest.raises(InputError, match=r"found ped-2024 \(1 case\), gli-2023 \(1 case\)"):
        settle({"BraTS-PED-1-000": (4,), "BraTS-GLI-1-000": (3,)})
    with pytest.raises(InputError, match=r"wanted cases of the store's task .gli-2021.*, found ped-2024"):
        settle({"BraTS-PED-1-000": (4,)}, joins=TASKS["gli-2021"], joins_values=TASKS["gli-2021"].convention)


def test_a_store_settles_only_what_it_was_told_of() -> None:
    ped, values = TASKS["ped-2024"], {"BraTS-PED-1-000": (1, 2)}
    assert settle(values, joins=ped, joins_values=ped.convention, decides=[ped]).task is ped
    with pytest.raises(InputError, match="2 ways"):  # other children's may be of another year
        settle(values, joins=ped, joins_values=ped.convention)
    assert settle({"BraTS-PED-1-000": None}, joins=ped, joins_values=ped.convention).task is ped
    later = TASKS["met-2024"]  # in which 1, 2 and 3 are what they were in 2023
    assert settle({"BraTS-MET-1-000": (1, 2)}, joins=later, joins_values=later.convention).task is later
    glioma = TASKS["gli-2023"]
    with pytest.raises(InputError, match="2 ways"):  # a store of gliomas says nothing of children
        settle(values, joins=glioma, joins_values=glioma.convention, decides=[glioma])
    # What was ambiguous alone, and the store was made with the user's word for it.
    for naming, name, before in ((Naming.UNDERSCORE, "Brats18_X_1", BRATS_2013), (Naming.TOLD, "pat1", BRATS_123)):
        told = settle({name: (1, 2, 3)}, naming, joins=glioma, joins_values=before)
        assert told.cases[0].convention is before


def test_a_store_that_was_told_nothing_says_nothing_of_rewritten_values(tmp_path: Path) -> None:
    glioma = TASKS["gli-2023"]
    store: dict[str, Any] = {"joins": glioma, "joins_values": glioma.convention, "decides": [glioma]}
    with pytest.raises(InputError, match="cannot tell"):  # 1 and 2 are changed about in nnU-Net's copies of 2021
        settle({"BraTS2021_00001": (1, 2, 3)}, Naming.UNDERSCORE, **store)
    with pytest.raises(InputError, match=r"do not say it; values: .* 4 in 1 case, such as pat2"):
        settle({"pat1": (1, 2), "pat2": (1, 2, 4)}, Naming.TOLD, **store)
    (case,) = cohort(Naming.NNUNET, "BraTS2021_00001")
    labelled = replace(case, label=tmp_path / "labelsTr")
    with pytest.raises(InputError, match="do not say it"):
        settle_tasks([labelled], {case.case_id: (1, 2, 3)}, **store)
    edema_first = custom_convention({1: 2, 2: 1, 3: 3})
    told = settle_tasks([labelled], {case.case_id: (1, 2, 3)}, **{**store, "joins_values": edema_first})
    assert told.cases[0].convention is edema_first


def test_a_store_that_was_told_of_other_values_is_not_passed_over() -> None:
    glioma, swapped = TASKS["gli-2021"], custom_convention({1: 2, 2: 1, 4: 3})
    store = {"joins": glioma, "joins_values": swapped, "decides": [glioma]}
    for values in ((1, 2), (1, 2, 4)):
        with pytest.raises(InputError, match=r"are gli-2021 by their names .* the store was told 1 edema, 2 necrotic"):
            settle({"BraTS2021_1": values}, Naming.UNDERSCORE, **store)
    assert settle({"BraTS2021_1": (4,)}, Naming.UNDERSCORE, **store).cases[0].convention is glioma.convention
    assert settle({"BraTS2021_1": (1,)}, Naming.UNDERSCORE, told=glioma, **store).cases[0].convention is BRATS_124
    assert settle({"BraTS2021_1": (1,)}, Naming.UNDERSCORE, label_map=swapped, **store).cases[0].convention is swapped


def test_a_network_settles_what_its_own_task_is_among() -> None:
    unlabelled, network = {"BraTS-PED-1-000": None}, TASKS["gli-2023"]
    assert settle(unlabelled, decides=[TASKS["ped-2024"]]).task is TASKS["ped-2024"]
    with pytest.raises(InputError, match="--task ped-2023 or ped-2024"):  # in whose values would it be written?
        settle(unlabelled, decides=[network])
    assert settle(unlabelled, decides=[TASKS["ped-2024"]]).notices == ()
    assert settle({"pat1": None}, Naming.TOLD, decides=[network]).task is network
    with pytest.raises(InputError, match="2 ways"):
        settle({"BraTS-PED-1-000": (1, 2)}, decides=[network])


def test_labels_that_only_the_network_settles_are_said() -> None:
    children, network = {"BraTS-PED-1-000": (1, 2, 3), "BraTS-PED-2-000": None}, TASKS["ped-2024"]
    (notice,) = settle(children, decides=[network]).notices
    assert notice.startswith("BraTS-PED-1-000: labels read as ped-2024, may be ped-2023")
    assert settle({**children, "BraTS-PED-2-000": (4,)}, decides=[network]).notices == ()
    assert settle(children, decides=[network], told=network).notices == ()


@pytest.mark.parametrize(
    ("naming", "family", "usual", "odd", "expected"),
    [(Naming.UNDERSCORE, "BraTS2021_", 4, 3, "gli-2021"), (Naming.HYPHEN, "BraTS-SSA-000-", 3, 4, "ssa")],
)
def test_one_odd_file_among_many_does_not_stop_the_cohort(
    naming: Naming, family: str, usual: int, odd: int, expected: str
) -> None:
    case_ids = [f"{family}{number:05d}" for number in range(11)]
    values: dict[str, Sequence[int]] = dict.fromkeys(case_ids, (1, 2, usual))
    assert settle({**values, case_ids[0]: (1, 2, odd)}, naming).task is TASKS[expected]
    for unclear in (
        {**values, case_ids[0]: (1, 2, odd, usual)},  # both in one case: no slip
        {**values, case_ids[0]: (odd,), case_ids[1]: (odd,)},  # not few
        {**dict.fromkeys(case_ids, (1, 2)), case_ids[0]: (odd,), case_ids[1]: (usual,)},  # without either: no evidence
    ):
        with pytest.raises(InputError, match="cannot tell"):
            settle(unclear, naming)


def test_an_odd_file_in_the_values_of_2021_makes_no_cavities() -> None:
    usual: dict[str, Sequence[int]] = {f"BraTS-GLI-{number:05d}-000": (1, 2, 3) for number in range(10)}
    settled = settle({**usual, "BraTS-GLI-10000-000": (1, 2, 4)})
    assert settled.task is TASKS["gli-2023"]  # of which 4 is none: the file is refused by name when it is read
    assert settle({**usual, "BraTS-GLI-10000-000": (1, 3, 4)}).task is TASKS["gli-2024"]


def test_by_endings_a_case_is_of_no_task_with_fewer_scans() -> None:
    (one,) = cohort(Naming.HYPHEN, "case7")
    radiotherapy, scans = TASKS["men-rt"], {"t1ce": Path("case7_t1c.nii"), "t2": Path("case7_t2w.nii")}
    told = {"joins": radiotherapy, "joins_values": radiotherapy.convention, "decides": [radiotherapy]}
    with pytest.raises(InputError, match="9 ways"):
        settle_tasks([replace(one, files=scans)], {"case7": (1,)}, **told)
    scans.pop("t2")
    assert settle_tasks([replace(one, files=scans)], {"case7": (1,)}, **told).task is radiotherapy


def test_the_values_of_a_file(tmp_path: Path, case_writer: type[Any]) -> None:
    case_writer(label_values=(2, 4)).write(tmp_path, "A")
    (case,) = find_cases(tmp_path).cases
    assert read_label_values(case) == (2, 4)
    assert isinstance(case.label, Path)
    case.label.write_bytes(b"")
    assert read_label_values(case) is None


def test_labels_of_nnunets_that_no_name_tells_are_asked_for_whatever_the_case_is_called(tmp_path: Path) -> None:
    (case,) = cohort(Naming.NNUNET, "BraTS-GLI-00000-000")
    labelled = replace(case, label=tmp_path / "labelsTr")
    with pytest.raises(InputError, match="--task"):
        settle_tasks([labelled], {case.case_id: (1, 2, 3)})
    assert settle_tasks([labelled], {case.case_id: (1, 2, 3)}, told=TASKS["gli-2023"]).task is TASKS["gli-2023"]
    told = replace(labelled, convention=custom_convention({1: 2, 2: 1, 3: 3}))
    assert settle_tasks([told], {}).cases[0].convention == told.convention
    assert settle_tasks([case], {}).task is TASKS["gli-2023"]
