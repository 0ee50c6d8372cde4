"""A store behind MONAI's transforms and loader: `python examples/read_with_monai.py cohort.zarr`."""

import sys
from typing import Any

import numpy as np
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Lambdad, MapTransform, NormalizeIntensityd, RandCropByPosNegLabeld, SpatialPadd

from storage import CohortStore, open_store, region_masks

BOTH = ["image", "label"]


class LoadCase(MapTransform):
    """{"case": case_id} to image (M, X, Y, Z) and label (1, X, Y, Z), as LoadImaged would give them in LPS."""

    def __init__(self, store: CohortStore) -> None:
        super().__init__(keys=["case"])
        self.store = store

    def __call__(self, data: Any) -> dict[str, Any]:
        info = self.store.info(data["case"])
        image_MDHW, label_DHW = self.store.read_case(info.case_id)  # compared with its checksums
        assert label_DHW is not None
        to_scan = np.eye(4)
        to_scan[:3, 3] = [first for first, _ in reversed(info.bbox)]  # the stored box begins within the scan
        affine = np.array(info.affine) @ to_scan
        loaded = dict(data)
        for name, array in (("image", image_MDHW.astype(np.float32)), ("label", label_DHW[None])):
            loaded[name] = MetaTensor(np.ascontiguousarray(array.transpose(0, 3, 2, 1)), affine=affine)
        return loaded


def main(store: str, side: int = 32) -> list[dict[str, Any]]:
    opened = open_store(store)
    transforms = Compose(
        [
            LoadCase(opened),
            NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            SpatialPadd(BOTH, spatial_size=(side,) * 3),
            RandCropByPosNegLabeld(BOTH, label_key="label", spatial_size=(side,) * 3, num_samples=2),
            Lambdad("label", lambda label: region_masks(label[0].numpy(), opened.task.regions)),
        ]
    )
    cases = [{"case": info.case_id} for info in opened.infos() if info.labelled]
    batches = list(DataLoader(Dataset(cases, transforms), batch_size=2))
    for batch in batches:
        print(batch["case"], tuple(batch["image"].shape), tuple(batch["label"].shape))
    return batches


if __name__ == "__main__":
    main(sys.argv[1])
