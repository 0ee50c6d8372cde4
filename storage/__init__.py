"""NIfTI in, Zarr out, patches read back. Knows numpy, nibabel and zarr; never torch, DALI or Ray."""

from storage.assignments import fold_cohort, split_cohort
from storage.cache import DecodedCaseCache
from storage.case import Case, CaseSearch, Naming
from storage.convert import convert_case
from storage.errors import CaseRefusedError, CorruptStoreError, InputError, Refusal
from storage.frame import Frame
from storage.held_case import HeldCase
from storage.info import CaseArrays, CaseInfo
from storage.intensity import normalisation_coefficients
from storage.labels import MODALITIES, REGION_LABELS, REGIONS, region_masks
from storage.search import find_cases
from storage.splits import SplitConfig, Splits, assign_folds, assign_splits
from storage.store import CohortStore, create_store, open_store

__all__ = [
    "MODALITIES",
    "REGIONS",
    "REGION_LABELS",
    "Case",
    "CaseArrays",
    "CaseInfo",
    "CaseRefusedError",
    "CaseSearch",
    "CohortStore",
    "CorruptStoreError",
    "DecodedCaseCache",
    "Frame",
    "HeldCase",
    "InputError",
    "Naming",
    "Refusal",
    "SplitConfig",
    "Splits",
    "assign_folds",
    "assign_splits",
    "convert_case",
    "create_store",
    "find_cases",
    "fold_cohort",
    "normalisation_coefficients",
    "open_store",
    "region_masks",
    "split_cohort",
]
