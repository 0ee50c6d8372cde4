"""A process that feeds batches until it is stopped: `python feeding_process.py STORE CACHE STOP_HOW`.

Prints "ready" after the first batches. STOP_HOW: "wait" goes on for ever, "exit" ends without closing, "raise" raises.
"""

import sys
from pathlib import Path

from dali_pipelines import AUGMENTATION_PRESETS, PatchLoader, SamplingConfig
from storage import DecodedCaseCache, open_store


def main(store_uri: str, folder: str, stop_how: str) -> None:
    store = open_store(store_uri)
    loader = PatchLoader(
        DecodedCaseCache(store, Path(folder), max_bytes=10**9),
        store.case_ids,
        sampling=SamplingConfig(patch_shape=(16, 16, 16), global_batch_size=2, patches_per_epoch=2000),
        augmentation=AUGMENTATION_PRESETS["light"],
    )
    for step, _ in enumerate(loader):
        if step == 2:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            if stop_how == "exit":
                return
            if stop_how == "raise":
                raise RuntimeError("as asked")


if __name__ == "__main__":
    main(*sys.argv[1:])
