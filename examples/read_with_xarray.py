"""A case of a store as an xarray dataset in millimetres: `python examples/read_with_xarray.py cohort.zarr`."""

import sys

import numpy as np
import xarray


def open_case(store: str, case_id: str) -> xarray.Dataset:
    """Image (modality, z, y, x), and label (z, y, x) where there is one, with their places; voxels are read when used.

    x, y and z are millimetres from the middle of the whole scan's first voxel, to the left, the back and the top.
    """
    case = xarray.open_zarr(store, group=f"cases/{case_id}", consolidated=False, chunks=None)
    record = case.attrs
    places = {
        axis: (np.arange(first, last) * side)
        for axis, (first, last), side in zip("zyx", record["bbox"], record["spacing"], strict=True)
    }
    return case.drop_vars("foreground", errors="ignore").assign_coords(modality=list(record["modalities"]), **places)


def main(store: str) -> xarray.Dataset:
    root = xarray.open_zarr(store, consolidated=False).attrs
    case = open_case(store, sorted(root["cases"])[0])
    print(case)
    brain = (case.image != 0).any("modality")
    print(case.image.where(brain).mean(("z", "y", "x")).to_series())
    if "label" in case:
        middle = (case.z * (case.label > 0)).sum() / (case.label > 0).sum()
        section = case.image.sel(z=middle, method="nearest")
        print(f"the slice through the tumour's middle lies at {section.z:.0f} mm: {dict(section.sizes)}")
    return case


if __name__ == "__main__":
    main(sys.argv[1])
