"""Small cases as real NIfTI files, and small stores made of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from storage import CohortStore, convert_case, create_store, find_cases

UNDERSCORE = {"flair": "_flair", "t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "label": "_seg"}
HYPHEN = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "label": "-seg"}
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


@dataclass
class CaseWriter:
    """Writes one small case: a brain with a tumour in a corner of zeros, different for each seed."""

    shape_XYZ: tuple[int, int, int] = (22, 20, 18)
    affine: np.ndarray = field(default_factory=LPS.copy)
    dtype: Any = np.int16
    label_values: tuple[int, ...] = (1, 2, 4)
    endings: Mapping[str, str] = field(default_factory=lambda: dict(UNDERSCORE))
    extension: str = ".nii.gz"
    roles: tuple[str, ...] = ("flair", "t1", "t1ce", "t2", "label")

    def arrays(self, seed: int) -> dict[str, np.ndarray]:
        """The voxels of each role, x y z."""
        random = np.random.default_rng(seed)
        x, y, z = self.shape_XYZ
        brain = np.zeros(self.shape_XYZ, dtype=bool)
        brain[3 : x - 4, 2 : y - 5, 1 : z - 3] = random.random((x - 7, y - 7, z - 4)) > 0.1
        arrays = {
            role: np.where(brain, random.integers(1, 900, self.shape_XYZ), 0).astype(self.dtype)
            for role in self.roles
            if role != "label"
        }
        if "label" in self.roles:
            label = np.zeros(self.shape_XYZ, dtype=np.uint8)
            for index, value in enumerate(self.label_values):
                label[5 + 2 * index : 8 + 2 * index, 6:10, 4:9] = value
            arrays["label"] = label
        return arrays

    def write(self, folder: Path, case_id: str, *, seed: int = 0) -> dict[str, Path]:
        """Files of one case in `folder`/`case_id`, by role."""
        paths: dict[str, Path] = {}
        for role, array in self.arrays(seed).items():
            path = folder / case_id / f"{case_id}{self.endings[role]}{self.extension}"
            self.save(path, array)
            paths[role] = path
        return paths

    def save(self, path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
        """One NIfTI file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, self.affine if affine is None else affine), path)


@pytest.fixture
def case_writer() -> type[CaseWriter]:
    return CaseWriter


@pytest.fixture
def convert_folder(tmp_path: Path) -> Callable[..., CohortStore]:
    """Convert every case of a folder into a new store, without Ray."""

    def convert(folder: Path, *, store: Path | str | None = None, **settings: Any) -> CohortStore:
        made = create_store(tmp_path / "store.zarr" if store is None else store, **settings)
        for case in find_cases(folder, modalities=made.settings.modalities).cases:
            convert_case(case, made)
        made.rebuild_index()
        return made

    return convert


@pytest.fixture(scope="session")
def small_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small cases in BraTS 2018 names; read-only."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(4):
        CaseWriter().write(folder, f"Brats18_T_{number}_1", seed=number)
    return folder


@pytest.fixture
def small_store(small_source: Path, convert_folder: Callable[..., CohortStore]) -> CohortStore:
    """A store of the four small cases, of its own for each test."""
    return convert_folder(small_source)


@pytest.fixture(scope="session")
def oddities() -> Path:
    """The folder of real files that break naive converters."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "oddities"
    if not folder.is_dir():
        pytest.skip(f"the oddities are not at {folder}")
    return folder


@pytest.fixture
def flip_byte() -> Callable[[Path, int], None]:
    """Change one byte of a file."""

    def flip(path: Path, position: int) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= 0x10
        path.write_bytes(data)

    return flip
