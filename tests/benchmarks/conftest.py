"""A store that several benchmarks read."""

from pathlib import Path

import pytest

from storage import convert_case, create_store, find_cases


@pytest.fixture(scope="session")
def store_uri(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three synthetic cases, converted."""
    store = create_store(tmp_path_factory.mktemp("store") / "phantom.zarr")
    for case in find_cases(phantom_source).cases[:3]:
        convert_case(case, store)
    store.rebuild_index()
    return store.uri
