"""NIfTI in, Zarr out, patches read back. Knows numpy, nibabel and zarr; never torch, DALI or Ray."""

from storage.errors import InputError
from storage.labels import MODALITIES, REGION_LABELS, REGIONS

__all__ = ["MODALITIES", "REGIONS", "REGION_LABELS", "InputError"]
