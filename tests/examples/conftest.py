"""A cohort as small as can be."""

from pathlib import Path

import pytest

from storage import write_phantom_cohort


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four synthetic cases as BraTS 2020 NIfTI files, voxels of 4 mm."""
    return write_phantom_cohort(tmp_path_factory.mktemp("source"), cases=4, spacing_mm=4.0)
