"""Cohorts that several packages' tests read. Nobody may write into them."""

import os
from pathlib import Path

import pytest

# Ray reads these when it is first imported. Tests never touch the user's own token or start an open cluster.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = "tests-only-0123456789abcdef0123456789abcdef"
os.environ.pop("RAY_ADDRESS", None)
for name in ("PRESET", "WORKERS", "STORE", "RUNS"):
    os.environ.pop(f"BRATS_{name}", None)

REAL_CASES = Path(__file__).parents[2] / "shared" / "data" / "brats2018"


@pytest.fixture(scope="session")
def phantom_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six synthetic cases as BraTS 2020 NIfTI files."""
    from storage.phantom import write_phantom_cohort

    return write_phantom_cohort(tmp_path_factory.mktemp("phantom"), cases=6, seed=1)


@pytest.fixture(scope="session")
def real_cases() -> Path:
    """The folder of real BraTS 2018 cases beside the project."""
    if not REAL_CASES.is_dir():
        pytest.skip(f"the real cases are not at {REAL_CASES}")
    return REAL_CASES
