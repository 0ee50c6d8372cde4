"""Every BraTS task as data: how its cases are called, what their values mean, which regions are scored and how drawn.

This table is the only place that knows a task. A *region* is a set of stored labels (conventions.py); regions nest
where one's labels are among another's. Values and names: the BraTS organisers' data descriptions of each year,
Antonelli et al. 2022 (Decathlon), Bakas et al. 2022 (UPENN-GBM), Calabrese et al. 2022 (UCSF-PDGM).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from storage.labels.conventions import (
    BRATS_123,
    BRATS_124,
    BRATS_2013,
    CYSTIC_COMPONENT,
    EDEMA,
    ENHANCING,
    GLI_2024,
    GROSS_TUMOUR_VOLUME,
    GTV,
    MODALITIES,
    MSD,
    NECROTIC_CORE,
    NON_ENHANCING_TUMOUR,
    PED_2024,
    RESECTION_CAVITY,
    LabelConvention,
)

WHOLE_TUMOUR, TUMOUR_CORE = "WT", "TC"  # the regions that a nnU-Net dataset may name
Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A mask that is predicted and scored: the voxels of some stored labels. `colour` is RGB, each from 0 to 1."""

    name: str
    title: str
    labels: tuple[int, ...]
    colour: Colour


def labels_of(regions: Sequence[Region]) -> frozenset[int]:
    """The stored labels of which `regions` are made."""
    return frozenset(label for region in regions for label in region.labels)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of one span of years.

    `ids` are regular expressions of whole case ids, in any letter case, whose group `person` is what exams of one
    person share. `scans` are those a case has. `regions` come outermost first; a region stands behind those around it.
    """

    name: str
    title: str
    ids: tuple[str, ...]
    convention: LabelConvention
    regions: tuple[Region, ...]
    scans: tuple[str, ...] = MODALITIES
    skull_stripped: bool = True
    """Whether what is not brain is 0. Else the whole head is seen, and 0 is an intensity like any other."""

    @property
    def region_names(self) -> tuple[str, ...]:
        """In the order of the network's outputs."""
        return tuple(region.name for region in self.regions)

    @property
    def region_labels(self) -> dict[str, tuple[int, ...]]:
        """The stored labels of each region."""
        return {region.name: region.labels for region in self.regions}

    @property
    def labels(self) -> frozenset[int]:
        """The stored labels that its values stand for, without the background."""
        return self.convention.labels

    def person_of(self, case_id: str) -> str | None:
        """The person whose exam `case_id` names; None where it is no id of this task."""
        for pattern in self.ids:
            if match := re.fullmatch(pattern, case_id, re.IGNORECASE):
                return match["person"]
        return None

    def holds(self, other: "Task") -> bool:
        """Whether cases of `other` may lie in a store of this task: each of their labels is one of its own."""
        return other.labels <= self.labels | labels_of(self.regions)


_WT, _TC, _ET = (0.25, 0.55, 0.95), (0.25, 0.80, 0.35), (0.75, 0.25, 0.85)
# Told apart from each other and from the enhancing tumour by the red- and green-blind too, painted over any grey.
_VERMILION, _YELLOW, _CYAN, _GREY = (0.85, 0.30, 0.05), (0.93, 0.85, 0.20), (0.35, 0.85, 0.85), (0.6, 0.6, 0.6)

ENHANCING_TUMOUR = Region(name="ET", title="enhancing tumour", labels=(ENHANCING,), colour=_ET)
GLIOMA_REGIONS = (
    Region(name=WHOLE_TUMOUR, title="whole tumour", labels=(NECROTIC_CORE, EDEMA, ENHANCING), colour=_WT),
    Region(name=TUMOUR_CORE, title="tumour core", labels=(NECROTIC_CORE, ENHANCING), colour=_TC),
    ENHANCING_TUMOUR,
)
# de Verdier et al. 2024, "The 2024 BraTS Challenge: Glioma Segmentation on Post-treatment MRI".
POST_TREATMENT_REGIONS = (
    *GLIOMA_REGIONS,
    Region(name="NETC", title="non-enhancing tumour core", labels=(NECROTIC_CORE,), colour=_YELLOW),
    Region(name="SNFH", title="surrounding FLAIR hyperintensity", labels=(EDEMA,), colour=_CYAN),
    Region(name="RC", title="resection cavity", labels=(RESECTION_CAVITY,), colour=_VERMILION),
)
_PED_CORE = (NON_ENHANCING_TUMOUR, CYSTIC_COMPONENT, ENHANCING)
# Kazerooni et al. 2024, "BraTS-PEDs: Results of the Multi-Consortium International Pediatric Brain Tumor Segmentation".
PAEDIATRIC_REGIONS = (
    Region(name=WHOLE_TUMOUR, title="whole tumour", labels=(EDEMA, *_PED_CORE), colour=_WT),
    Region(name=TUMOUR_CORE, title="tumour core", labels=_PED_CORE, colour=_TC),
    ENHANCING_TUMOUR,
    Region(name="NET", title="non-enhancing tumour", labels=(NON_ENHANCING_TUMOUR,), colour=_YELLOW),
    Region(name="CC", title="cystic component", labels=(CYSTIC_COMPONENT,), colour=_VERMILION),
    Region(name="ED", title="peritumoral edema", labels=(EDEMA,), colour=_CYAN),
)
GTV_REGIONS = (Region(name="GTV", title="gross tumour volume", labels=(GROSS_TUMOUR_VOLUME,), colour=_ET),)


def _glioma(name: str, title: str, *ids: str, convention: LabelConvention = BRATS_123) -> Task:
    return Task(name=name, title=title, ids=ids, convention=convention, regions=GLIOMA_REGIONS)


# Exams before treatment end in a number below 100, exams after it in one from 100 on.
_BEFORE, _AFTER = r"-0*\d{1,2}", r"-0*[1-9]\d{2,}"
_PED_IDS, _MET_IDS = r"(?P<person>BraTS-PEDs?-\w+)-\d+", r"(?P<person>BraTS-METS?-\w+)-\d+"

GLI_2021_TASK = _glioma(
    "gli-2021",
    "adult glioma, BraTS 2018 to 2021",
    r"(?P<person>Brats1[789]_.+)_\d+",
    r"(?P<person>BraTS(?:20|2021)_(?:Training_|Validation_|Testing_)?\w+)",
    convention=BRATS_124,
)
GLI_2023_TASK = _glioma("gli-2023", "adult glioma, BraTS 2023", rf"(?P<person>BraTS-GLI-\w+){_BEFORE}")
GLI_2024_TASK = Task(
    name="gli-2024",
    title="adult glioma after treatment, BraTS 2024 and 2025",
    ids=(rf"(?P<person>BraTS-GLI-\w+){_AFTER}",),
    convention=GLI_2024,
    regions=POST_TREATMENT_REGIONS,
)
MEN_RT_TASK = Task(
    name="men-rt",
    title="meningioma before radiotherapy, BraTS 2024 on",
    ids=(r"(?P<person>BraTS-MEN-RT-\w+)-\d+",),
    convention=GTV,
    regions=GTV_REGIONS,
    scans=("t1ce",),
    skull_stripped=False,
)
MSD_TASK = _glioma("msd", "Medical Segmentation Decathlon, Task01", r"(?P<person>BRATS_\d+)", convention=MSD)
BRATS_2013_TASK = _glioma("gli-2013", "adult glioma, BraTS 2013", convention=BRATS_2013)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        GLI_2021_TASK,
        GLI_2023_TASK,
        GLI_2024_TASK,
        _glioma("ssa", "glioma in sub-Saharan Africa, BraTS 2023 on", r"(?P<person>BraTS-SSA-\w+)-\d+"),
        _glioma("men", "meningioma, BraTS 2023", r"(?P<person>BraTS-MEN-(?!RT-)\w+)-\d+"),
        _glioma("met-2023", "brain metastases, BraTS 2023", _MET_IDS),
        Task(
            name="met-2024",
            title="brain metastases, BraTS 2024 on",
            ids=(_MET_IDS,),
            convention=GLI_2024,
            regions=POST_TREATMENT_REGIONS,
        ),
        _glioma("ped-2023", "paediatric glioma, BraTS 2023", _PED_IDS),
        Task(
            name="ped-2024",
            title="paediatric glioma, BraTS 2024 on",
            ids=(_PED_IDS,),
            convention=PED_2024,
            regions=PAEDIATRIC_REGIONS,
        ),
        _glioma("goat", "generalizability across tumours, BraTS 2024 on", r"(?P<person>BraTS-GoAT-\w+?)(?:-\d+)?"),
        MEN_RT_TASK,
        MSD_TASK,
        _glioma("upenn-gbm", "UPENN-GBM (TCIA)", r"(?P<person>UPENN-GBM-\d+)_\d+", convention=BRATS_124),
        _glioma("ucsf-pdgm", "UCSF-PDGM (TCIA)", r"(?P<person>UCSF-PDGM-\d+)(?:_FU\d+d)?", convention=BRATS_124),
        BRATS_2013_TASK,
    )
}
"""By name, what can be said of a cohort: which labels its values mean, and which regions they make."""

# What people call the newest task of a name.
SHORT_NAMES = {"gli": "gli-2023", "gli-post": "gli-2024", "met": "met-2024", "ped": "ped-2024"}


# What a label is called in a picture's legend.
_SEEN = {
    NECROTIC_CORE: "non-enhancing core",
    EDEMA: "edema",
    ENHANCING: "enhancing",
    RESECTION_CAVITY: "resection cavity",
    CYSTIC_COMPONENT: "cystic component",
    NON_ENHANCING_TUMOUR: "non-enhancing tumour",
    GROSS_TUMOUR_VOLUME: "gross tumour volume",
}


def seen_of_regions(regions: Sequence[Region]) -> dict[str, str]:
    """What is left to be seen of each region, by name, where they are painted over each other in their order.

    A region of which nothing is left is not in it.
    """
    painted = {label: region.name for region in regions for label in region.labels}
    left = {
        region.name: [_SEEN[label] for label in region.labels if painted[label] == region.name] for region in regions
    }
    return {name: ", ".join(labels) for name, labels in left.items() if labels}


@lru_cache(maxsize=4096)
def tasks_named(case_id: str) -> tuple[Task, ...]:
    """The tasks of which `case_id` may be a case, by its name alone."""
    return tuple(task for task in TASKS.values() if task.person_of(case_id) is not None)


def person_of(case_id: str) -> str:
    """The person whose exam a case is, by its id: `BraTS-GLI-00005-101` and `-100` are one; else the id itself."""
    return next((person for task in TASKS.values() if (person := task.person_of(case_id))), case_id)


def task_of_old_store(convention: LabelConvention) -> Task:
    """What a store was made for before stores named their task: it has no name, and glioma's regions."""
    return Task(name="", title="", ids=(), convention=convention, regions=GLIOMA_REGIONS)


def custom_task(convention: LabelConvention) -> Task:
    """The task of labels that the user told: the first set of regions that has them all; raises ValueError for none."""
    for regions in (GLIOMA_REGIONS, POST_TREATMENT_REGIONS, PAEDIATRIC_REGIONS, GTV_REGIONS):
        if convention.labels <= labels_of(regions):
            return Task(name="custom", title="labels told", ids=(), convention=convention, regions=regions)
    raise ValueError(f"no task has regions of the stored labels {sorted(convention.labels)} together")


def find_task(
    name: str,
    *,
    convention: LabelConvention,
    regions: Mapping[str, Sequence[int]],
    scans: tuple[str, ...],
    skull_stripped: bool = True,
) -> Task:
    """The task of that name with these regions; where this version has another or none, as it is described."""
    task = TASKS.get(name)
    wanted = {region: tuple(labels) for region, labels in regions.items()}
    if task is not None and task.region_labels == wanted and task.region_names == tuple(wanted):
        return task
    every = (*POST_TREATMENT_REGIONS, *PAEDIATRIC_REGIONS, *GTV_REGIONS)
    known = {(region.name, region.labels): region for region in every}
    return Task(
        name=name,
        title=name,
        ids=(),
        convention=convention,
        regions=tuple(
            known.get((region, labels)) or Region(name=region, title=region, labels=labels, colour=_GREY)
            for region, labels in wanted.items()
        ),
        scans=scans,
        skull_stripped=skull_stripped,
    )
