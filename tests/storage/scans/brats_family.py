"""What the BraTS organisers and the archives say of each task: names, values, regions. Nothing here is the product's.

Source: the challenges' pages and data descriptions, the archives' (UPENN-GBM, UCSF-PDGM) and the Decathlon's.
Of the product only what a user sees is known here: a task's name, and what the stored labels are called.
"""

from collections.abc import Mapping
from dataclasses import dataclass

CORE, EDEMA, ENHANCING = "necrotic_or_non_enhancing_core", "edema", "enhancing"
CAVITY, NET, CYST, GTV = "resection_cavity", "non_enhancing_tumour", "cystic_component", "gross_tumour_volume"

OLD = {"flair": "flair", "t1": "t1", "t1ce": "t1ce", "t2": "t2", "label": "seg"}
NEW = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "label": "seg"}
UPENN = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1GD", "t2": "T2", "label": "segm"}
UCSF = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1c", "t2": "T2", "label": "segmentation"}
UCSF_BIAS = {"flair": "FLAIR_bias", "t1": "T1_bias", "t1ce": "T1c_bias", "t2": "T2_bias", "label": "tumor_segmentation"}
MEN_RT = {"t1ce": "t1c", "label": "gtv"}

ADULT = {1: CORE, 2: EDEMA, 4: ENHANCING}
LATER = {1: CORE, 2: EDEMA, 3: ENHANCING}
TREATED = {**LATER, 4: CAVITY}
CHILDREN = {1: ENHANCING, 2: NET, 3: CYST, 4: EDEMA}
THREE = {"WT": {CORE, EDEMA, ENHANCING}, "TC": {CORE, ENHANCING}, "ET": {ENHANCING}}
SIX = {**THREE, "NETC": {CORE}, "SNFH": {EDEMA}, "RC": {CAVITY}}
OF_CHILDREN = {
    "WT": {ENHANCING, NET, CYST, EDEMA},
    "TC": {ENHANCING, NET, CYST},
    **{"ET": {ENHANCING}, "NET": {NET}, "CC": {CYST}, "ED": {EDEMA}},
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A task: its cases' ids (`#` is a number, `%` an exam's), how files end, what values mean, what is scored.

    Rows with the same ids and exams are told apart by their values alone. Without endings it is one 4-D file.
    """

    task: str
    ids: tuple[str, ...]
    endings: tuple[Mapping[str, str], ...]
    values: Mapping[int, str]
    regions: Mapping[str, set[str]]
    exams: tuple[int, int] = (0, 99)

    def means_the_same(self, other: "Row") -> bool:
        return self.values == other.values and self.regions == other.regions


OLD_IDS = (
    *("Brats18_TCIA01_#_1", "Brats18_CBICA_AAB_1#", "Brats18_2013_#_1", "BraTS19_TCIA10_#_1", "BraTS19_CBICA_A#_1"),
    *("BraTS20_Training_#", "BraTS20_Validation_#", "BraTS2021_#"),
)
TABLE = [
    Row(task="gli-2021", ids=OLD_IDS, endings=(OLD,), values=ADULT, regions=THREE),
    Row(task="gli-2023", ids=("BraTS-GLI-#-%",), endings=(NEW,), values=LATER, regions=THREE),
    Row(task="ssa", ids=("BraTS-SSA-#-%",), endings=(NEW,), values=LATER, regions=THREE),
    Row(task="men", ids=("BraTS-MEN-#-%",), endings=(NEW,), values=LATER, regions=THREE),
    Row(task="met-2023", ids=("BraTS-MET-#-%",), endings=(NEW,), values=LATER, regions=THREE),
    Row(task="ped-2023", ids=("BraTS-PED-#-%",), endings=(NEW,), values=LATER, regions=THREE),
    Row(task="goat", ids=("BraTS-GoAT-#", "BraTS-GoAT-#-%"), endings=(NEW,), values=LATER, regions=THREE),
    Row(task="gli-2024", ids=("BraTS-GLI-#-%",), endings=(NEW,), values=TREATED, regions=SIX, exams=(100, 999)),
    Row(task="met-2024", ids=("BraTS-MET-#-%",), endings=(NEW,), values=TREATED, regions=SIX),
    Row(task="ped-2024", ids=("BraTS-PED-#-%",), endings=(NEW,), values=CHILDREN, regions=OF_CHILDREN),
    Row(
        task="men-rt",
        ids=("BraTS-MEN-RT-#-1", "BraTS-MEN-RT-#-2"),
        endings=(MEN_RT,),
        values={1: GTV},
        regions={"GTV": {GTV}},
    ),
    Row(task="msd", ids=("BRATS_#",), endings=(), values={1: EDEMA, 2: CORE, 3: ENHANCING}, regions=THREE),
    Row(task="upenn-gbm", ids=("UPENN-GBM-#_11", "UPENN-GBM-#_21"), endings=(UPENN,), values=ADULT, regions=THREE),
    Row(
        task="ucsf-pdgm",
        ids=("UCSF-PDGM-#", "UCSF-PDGM-#_FU%d"),
        endings=(UCSF, UCSF_BIAS),
        values=ADULT,
        regions=THREE,
    ),
]
ROW_OF = {row.task: row for row in TABLE}
# Ids of nobody's, which people give: then the files' endings say which years it can be. A Decathlon case that was cut
# into a file for each scan is one of those, too: its name says the Decathlon and its files 2018 to 2021.
NOBODYS = ("patient#", "case_#", "sub-#_ses-1", "P#-pre")
LATER_ROWS = [row for row in TABLE if NEW in row.endings]
# ids, endings, and the rows that they leave
RENAMED: list[tuple[tuple[str, ...], Mapping[str, str], list[Row]]] = [
    (NOBODYS, OLD, [ROW_OF["gli-2021"]]),
    (NOBODYS, NEW, LATER_ROWS),
    (("BRATS_#",), OLD, [ROW_OF["gli-2021"], ROW_OF["msd"]]),
    (("BRATS_#",), NEW, [*LATER_ROWS, ROW_OF["msd"]]),
]
