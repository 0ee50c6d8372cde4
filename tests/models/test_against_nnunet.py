"""Ours against nnU-Net v2's own network, loss and preprocessing: the same weights and scans give the same numbers.

What differs, and stays so: nnU-Net's Dice term is -Dice, ours 1 - Dice, so that losses differ by exactly 1; its
convolutions have biases, which the normalisation after them cancels; and it counts voxels where every scan is 0 as
brain where brain encloses them, ours do not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peer_nnunet import MODALITIES, plans
from models import Loss, LossConfig, UNetConfig, build_unet
from ray_jobs.exchange.nnunet_weights import from_theirs
from storage import convert_case, create_store, find_cases, normalisation_coefficients
from storage.cases.normalisation import brain_mask
from storage.scans.phantom import SPACING_MM
from tests.ray_jobs.exchange.nnunet_peer import architecture, build_network

pytest.importorskip("nnunetv2", reason="nnunetv2 isn't installed (it is in .venv-bench)")

LEVELS = 4
OURS = UNetConfig(widths=(4, 8, 12, 16), deep_supervision=LEVELS - 3)
Named = Mapping[str, Tensor]


def theirs_as_ours(theirs: Named) -> Named:
    """Their weights or gradients under our names."""
    ours = from_theirs(theirs, OURS, range(OURS.regions))
    # Of the coarsest output the loss has weight 0, and ours has no head there.
    return {name: value for name, value in ours.items() if not name.startswith(f"heads.{LEVELS - 2}.")}


def build_their_loss(*, batch_dice: bool) -> torch.nn.Module:
    """What its trainer trains regions with."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = SimpleNamespace(
        label_manager=SimpleNamespace(has_regions=True, ignore_label=None),
        configuration_manager=SimpleNamespace(batch_dice=batch_dice),
        is_ddp=False,
        enable_deep_supervision=True,
        _do_i_compile=lambda: False,
        _get_deep_supervision_scales=lambda: [[0.5**level] * 3 for level in range(LEVELS - 1)],
    )
    return nnUNetTrainer._build_loss(trainer)


def downsample(regions: Tensor) -> list[Tensor]:
    """The targets of its loss, by its own transform."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

    transform = DownsampleSegForDSTransform([[0.5**level] * 3 for level in range(LEVELS - 1)])
    each = [transform(segmentation=case)["segmentation"] for case in regions]
    return [torch.stack(level) for level in zip(*each, strict=True)]


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.processes
def test_the_same_weights_and_batch_give_the_same_loss_and_gradients(batch_dice: bool) -> None:  # noqa: FBT001
    torch.manual_seed(0)
    theirs, ours = build_network(architecture("plain", OURS.widths)), build_unet(OURS)
    ours.load_state_dict(theirs_as_ours(theirs.state_dict()))  # strict: no weight of ours is left out
    image = torch.randn(2, 4, 32, 40, 24)
    inner = torch.rand(2, 1, 32, 40, 24)
    regions = torch.cat((inner < 0.4, inner < 0.2, inner < 0.1), dim=1).float()

    their_loss = build_their_loss(batch_dice=batch_dice)(theirs(image), downsample(regions))
    our_loss = Loss(LossConfig(dice="batch" if batch_dice else "sample"))(ours(image), regions)
    their_loss.backward()
    our_loss.backward()

    assert abs(float(our_loss.detach()) - 1 - float(their_loss.detach())) < 1e-5
    wanted = theirs_as_ours({name: value.grad for name, value in theirs.named_parameters() if value.grad is not None})
    came = {name: value.grad for name, value in ours.named_parameters()}
    assert came.keys() == wanted.keys()
    for name, gradient in came.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=0, atol=1e-5, msg=name)
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 1e-2


@pytest.mark.processes  # its imports start some
def test_the_same_scan_is_normalised_alike(phantom_source: Path, tmp_path: Path) -> None:
    compare_normalised(phantom_source, tmp_path, spacing=[SPACING_MM] * 3, cases=1)


@pytest.mark.slow
@pytest.mark.processes
def test_real_scans_are_normalised_alike(real_cases: Path, tmp_path: Path) -> None:
    compare_normalised(real_cases, tmp_path, spacing=[1.0] * 3, cases=3)


def compare_normalised(source: Path, folder: Path, *, spacing: Sequence[float], cases: int) -> None:
    """Hold our scans to nnU-Net's preprocessing of the same files; where brain encloses zeros ours stay 0."""
    store = create_store(folder / "store")
    found = find_cases(source).cases[:cases]
    for case in found:
        convert_case(case, store)
    store.rebuild_index()
    for case in found:
        info, arrays = store.info(case.case_id), store.read_case(case.case_id)
        scale, offset = (each.reshape(4, 1, 1, 1) for each in normalisation_coefficients(info, "zscore"))
        brain = brain_mask(arrays.image_MDHW)
        ours = (arrays.image_MDHW * scale + offset) * brain
        files = [str(case.files[modality]) for modality in MODALITIES]
        theirs, label = preprocess(files, str(case.label), spacing)
        assert ours.shape == theirs.shape
        enclosed = (label[0] >= 0) & ~brain
        limit = 1e-5 if not enclosed.any() else 5e-4  # then their means and deviations are of a few voxels more
        assert np.abs(ours - theirs)[:, ~enclosed].max() <= limit, f"{case.case_id}: {enclosed.sum()} enclosed"
        assert np.abs(theirs).max() > 2


def preprocess(files: list[str], label: str, spacing: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """A case by nnU-Net's preprocessing, as its plan for BraTS has it, at the scans' own spacing."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plan = plans()
    plan["configurations"]["3d_fullres"]["spacing"] = list(spacing)
    manager = PlansManager(plan)
    labels = {"background": 0, "ncr": 1, "ed": 2, "unused": 3, "et": 4}
    channels = {str(index): name for index, name in enumerate(MODALITIES)}
    dataset = {"labels": labels, "channel_names": channels, "file_ending": ".nii.gz"}
    configuration = manager.get_configuration("3d_fullres")
    image, segmentation, _ = DefaultPreprocessor(verbose=False).run_case(files, label, manager, configuration, dataset)
    return image, segmentation
