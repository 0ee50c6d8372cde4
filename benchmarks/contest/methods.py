"""Who takes part: ours and the peers, each a program of this package with what it is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contest.settings import AS_IT_IS

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the budget, at which weights are kept and scored."""
SHORT = 200
"""Runs of fewer steps say nothing of a method: where a run would be one it ends at once, unless it is wanted."""
OUR_PATCH = (96, 96, 96)  # of the laptop preset


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table. `needs`: the package that must be installed. `borrows`: the method whose weights it predicts
    with; it trains none."""

    title: str
    program: str
    needs: str = "torch"
    borrows: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def _nnunet(title: str, **settings: Any) -> Method:
    return Method(title=f"nnU-Net v2, {title}", program="nnunet", needs="nnunetv2", settings=settings)


def _monai(title: str, **settings: Any) -> Method:
    return Method(title=f"MONAI {title}", program="monai_networks", needs="monai", settings=settings)


METHODS: dict[str, Method] = {
    "ours": Method(title="ours, laptop", program="ours", settings={"batch": 2, "workers": 1}),
    "ours-whole": Method(
        title="... its weights, whole heads at once", program="ours", borrows="ours",
        settings={"batch": 2, "workers": 1, "inference": ["--inference.whole", "True"]},
    ),
    "nnunet-patch": _nnunet("3d_fullres with our patch", configuration="3d_fullres", patch=OUR_PATCH, batch=2),
    # As planned a batch has some hundred slices: a few dozen steps in an hour.
    "nnunet-2d": _nnunet("2d, batch 12", configuration="2d", batch=12),
    "nnunet-3d": _nnunet("3d_fullres as planned", configuration="3d_fullres"),
    "segresnet-patch": _monai(
        "SegResNet, our patch, ten times its rate", network="segresnet", patch=OUR_PATCH, batch=2, learning_rate=1e-3
    ),
    "dynunet-patch": _monai("DynUNet with our patch", network="dynunet", patch=OUR_PATCH, batch=2, learning_rate=1e-2),
    "segresnet": _monai(
        "SegResNet, its BraTS tutorial", network="segresnet", patch=(224, 224, 144), window=(240, 240, 160), batch=1,
        learning_rate=1e-4,
    ),
    "dynunet": _monai("DynUNet, 128^3", network="dynunet", patch=(128, 128, 128), batch=2, learning_rate=1e-2),
}  # fmt: skip

# A network that ours and nnU-Net can both build, and all else the same; see benchmarks/parity.py.
PARITY_WIDTHS, PARITY_PATCH = (16, 32, 64, 128), (64, 64, 64)
PARITY: dict[str, Method] = {
    "parity-ours": Method(
        title="ours",
        program="ours",
        settings={
            "batch": 2,
            "workers": 1,
            "flags": [
                *("--sampling.patch-shape", *map(str, PARITY_PATCH), "--model.widths", *map(str, PARITY_WIDTHS)),
                *("--model.stem-stride", "1", "--model.deep-supervision", "1", "--loss.dice", "sample"),
                *("--optimiser.name", "sgd", "--optimiser.learning-rate", "0.01", "--optimiser.weight-decay", "3e-5"),
                *("--optimiser.warmup-steps", "0", "--optimiser.ema-decay", "None", "--sampling.foreground-fraction"),
                *("0.5", "--validation.no-whole", "--validation.overlap", "0.5"),  # nnU-Net: one of two patches
            ],
        },
    ),
    "parity-nnunet": _nnunet(
        "the same network",
        configuration="3d_fullres", patch=PARITY_PATCH, batch=2, widths=PARITY_WIDTHS, levels=4, batch_dice=False,
    ),
}  # fmt: skip


# Ours beside ours: one network for any scans (benchmarks/missing_scans.py), changes of the preset (laptop_trials.py).
_EVEN: Mapping[str, Any] = {"batch": 2, "workers": 1, "mirror": False, "flags": ["--no-dashboard"]}


def with_flags(title: str, *flags: str, batch: int = 2, inference: Sequence[str] = ()) -> Method:
    """The preset laptop with these flags of train.py; or as it is, with these of predict.py."""
    told = {**_EVEN, "batch": batch, "flags": [*_EVEN["flags"], *flags]}
    if not inference:
        return Method(title=title, program="ours", settings=told)
    return Method(title=title, program="ours", settings={**told, "inference": [*inference]}, borrows=AS_IT_IS)


USUAL = with_flags("trained with all scans")
DROPOUT = with_flags("trained with modality dropout", "--sampling.modality-dropout", "0.5")


def of_scans(scans: str) -> Method:
    """A network that knows these scans alone, such as t1ce+flair."""
    return Method(title=f"trained with {scans} alone", program="ours", settings={**_EVEN, "scans": scans.split("+")})
