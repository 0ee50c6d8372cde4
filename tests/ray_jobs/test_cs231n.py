"""cs231n-3d-segmentation's presets feed its networks what it fed them, so that imported weights predict as they did."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from pytorch3dunet.unet3d.model import UNet2D, UNet3D

from dali_pipelines import AUGMENTATION_PRESETS, PatchLoader, SamplingConfig, VolumeLoader
from models import choose_precision, unet_from_pytorch3dunet
from ray_jobs.evaluation.validation import CaseEvaluator
from ray_jobs.settings.presets import preset
from storage import CohortStore, DecodedCaseCache, InputError

MODALITIES = ("flair", "t1", "t1ce", "t2")


def read_as_cs231n(source: Path, case_id: str) -> torch.Tensor:
    """Whole volumes, each modality scaled to [0, 1] by minimum and maximum, five slices dropped at each end."""
    scans = []
    for modality in MODALITIES:
        voxels_XYZ = np.asarray(nibabel.load(source / case_id / f"{case_id}_{modality}.nii.gz").dataobj, np.float32)
        scaled = (voxels_XYZ - voxels_XYZ.min()) / (voxels_XYZ.max() - voxels_XYZ.min())
        scans.append(scaled.transpose(2, 1, 0)[5:-5])
    return torch.from_numpy(np.stack(scans))


@pytest.fixture(scope="module")
def cache(phantom_store: CohortStore, tmp_path_factory: pytest.TempPathFactory) -> DecodedCaseCache:
    return DecodedCaseCache(phantom_store, tmp_path_factory.mktemp("cache"), max_bytes=10**9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cs231n3d", "cs231n2d"])
def test_imported_weights_predict_as_they_did(name: str, phantom_source: Path, cache: DecodedCaseCache) -> None:
    config = preset(name)
    case_id = cache.store.case_ids[0]
    torch.manual_seed(0)
    kind = UNet3D if config.model.dimensions == 3 else UNet2D
    original = kind(4, 3, f_maps=18, num_groups=9, final_sigmoid=True).eval()
    (volume,) = VolumeLoader(cache, [case_id], normalisation=config.normalisation, frame=config.frame)
    image_MDHW = read_as_cs231n(phantom_source, case_id)
    torch.testing.assert_close(volume.image_MDHW, image_MDHW, rtol=0, atol=1e-6)
    # A slab of the scan: the networks take their time.
    image_MDHW, ours_MDHW = image_MDHW[:, 20:36], volume.image_MDHW[:, 20:36]
    with torch.inference_mode():
        if kind is UNet3D:
            expected = torch.sigmoid(original(image_MDHW[None], return_logits=True)[1])[0]
        else:
            slices_DMHW = image_MDHW.transpose(0, 1)
            expected = torch.sigmoid(original(slices_DMHW, return_logits=True)[1]).transpose(0, 1)

    network = unet_from_pytorch3dunet(original.state_dict()).eval()
    precision = choose_precision(torch.device("cpu"), "float32")
    evaluator = CaseEvaluator(network, config.sampling.patch_shape, config.validation, precision)
    torch.testing.assert_close(evaluator.probabilities(ours_MDHW), expected, rtol=0, atol=1e-5)


def test_patches_are_whole_scans(cache: DecodedCaseCache) -> None:
    config = preset("cs231n3d")
    case_id = cache.store.case_ids[0]
    (volume,) = VolumeLoader(cache, [case_id], normalisation=config.normalisation, frame=config.frame)
    shape = volume.image_MDHW.shape[1:]
    sampling = SamplingConfig(
        dimensions=3, patch_shape=tuple(shape), global_batch_size=1, patches_per_epoch=1, foreground_fraction=0.0
    )
    with PatchLoader(
        cache,
        [case_id],
        sampling=sampling,
        augmentation=AUGMENTATION_PRESETS["none"],
        normalisation=config.normalisation,
        frame=config.frame,
    ) as loader:
        (batch,) = loader
        torch.testing.assert_close(batch.image[0], volume.image_MDHW, rtol=0, atol=1e-6)
        torch.testing.assert_close(batch.regions[0], volume.regions_RDHW)


def test_slices_are_dropped_from_scans_only() -> None:
    from storage import Frame

    with pytest.raises(InputError, match="drop_slices"):
        Frame(grid="head", drop_slices=5)
