"""From NIfTI to a store, from Python: `python examples/conversion.py --store cohort.zarr [--source FOLDER_OR_ARCHIVE]`.

Without a source it writes a synthetic cohort and converts that; the other examples read what it makes.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from storage import (
    TASKS,
    CaseRefusedError,
    CohortStore,
    convert_case,
    create_store,
    find_cases,
    list_source,
    write_phantom_cohort,
)


def convert(source: str | Path, store: CohortStore) -> None:
    """Bring every case of a folder, zip or tar archive into the store; what cannot be read is named and left out."""
    found = find_cases(list_source(source), modalities=store.settings.modalities)
    for refusal in found.refused:
        print(f"left out {refusal}")
    stored = store.committed_cases()
    for case in found.cases:
        if case.case_id in stored:
            continue
        try:
            info = convert_case(case, store)
        except CaseRefusedError as error:
            print(f"left out {error.refusal}")
        else:
            print(f"{info.case_id}: {info.shape} voxels z y x, a side of {info.spacing} mm, {info.region_voxels}")
    store.rebuild_index()  # until then a new case is committed, but not listed


def main(arguments: Sequence[str] | None = None) -> CohortStore:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="a folder or an s3:// URL")
    parser.add_argument("--source", help="NIfTI cases; by default four synthetic ones")
    parser.add_argument("--task", choices=TASKS, default="gli-2021", help="what the cases' labels mean")
    options = parser.parse_args(arguments)
    store = create_store(options.store, task=TASKS[options.task])
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or write_phantom_cohort(Path(folder), cases=4, spacing_mm=4.0)
        convert(source, store)
    print(f"{store.uri}: {len(store.case_ids)} cases")
    return store


if __name__ == "__main__":
    main()
