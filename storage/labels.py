"""Modalities, labels and regions: decided here once, in this order, for every other file.

A *label* is a voxel's value; a *region* is one of the overlapping masks that BraTS scores.
Stores hold labels in one convention whatever the source used.
Source of the regions: Baid et al. 2021, "The RSNA-ASNR-MICCAI BraTS 2021 Benchmark", section 4.
"""

MODALITIES = ("flair", "t1", "t1ce", "t2")
REGIONS = ("WT", "TC", "ET")

# The stored convention. RESECTION_CAVITY exists since BraTS-GLI 2024 and belongs to no region.
BACKGROUND, NECROTIC_CORE, EDEMA, ENHANCING, RESECTION_CAVITY = range(5)

REGION_LABELS: dict[str, tuple[int, ...]] = {
    "WT": (NECROTIC_CORE, EDEMA, ENHANCING),
    "TC": (NECROTIC_CORE, ENHANCING),
    "ET": (ENHANCING,),
}
