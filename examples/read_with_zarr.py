"""A store read by zarr alone, without this project: `python examples/read_with_zarr.py cohort.zarr`."""

import sys
from typing import Any

import numpy as np
import zarr


def read_case(store: str, case_id: str) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """The z-scores (modality, z, y, x), the stored labels (z, y, x) or None, and the case's record."""
    case = zarr.open_group(store, mode="r", path=f"cases/{case_id}")
    record = dict(case.attrs)
    image = np.asarray(case["image"])
    mean, std = (np.asarray(record[name], np.float32)[:, None, None, None] for name in ("mean", "std"))
    brain = (image != 0).any(axis=0)
    normalised = np.where(brain, (image - mean) / std, 0).astype(np.float32)
    return normalised, np.asarray(case["label"]) if record["labelled"] else None, record


def whole_grid(cropped: np.ndarray, record: dict[str, Any]) -> np.ndarray:
    """A stored (z, y, x) array in the whole scan's grid, 0 outside the box."""
    whole = np.zeros(record["original_shape"], cropped.dtype)
    whole[tuple(slice(*side) for side in record["bbox"])] = cropped
    return whole


def main(store: str) -> None:
    root: dict[str, Any] = dict(zarr.open_group(store, mode="r").attrs)
    for case_id in root["cases"]:
        normalised, label, record = read_case(store, case_id)
        print(case_id, dict(zip(record["modalities"], normalised.mean(axis=(1, 2, 3)).round(2).tolist(), strict=True)))
        if label is not None:
            litres = np.prod(record["spacing"]) / 1e6
            whole = whole_grid(label, record)
            for region, labels in root["region_labels"].items():
                print(f"  {region}: {np.isin(whole, labels).sum() * litres:.4f} l")


if __name__ == "__main__":
    main(sys.argv[1])
