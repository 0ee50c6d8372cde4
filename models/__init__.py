"""U-Nets, losses, thresholds, metrics and inference in pure PyTorch. Knows no Ray, Zarr, DALI, rank or path."""

from models.ema import WeightAverage
from models.inference import sliding_window_probabilities
from models.lesions import LesionRules, LesionScores, score_lesions
from models.losses import PYTORCH3DUNET_LOSS, Loss, LossConfig, build_loss
from models.metrics import CaseScores, mean_over_cases, score_case, score_overlap
from models.precision import (
    NonFiniteGradientsError,
    OptimiserStep,
    Precision,
    PrecisionName,
    StepResult,
    choose_precision,
)
from models.presets import UNET_PRESETS
from models.pytorch3dunet import unet_from_pytorch3dunet
from models.region_rules import OverlapRule, RegionRules, segment_regions
from models.thresholds import RegionScores, ThresholdCounts
from models.unet import Execution, UNet, UNetConfig, build_unet

__all__ = [
    "PYTORCH3DUNET_LOSS",
    "UNET_PRESETS",
    "CaseScores",
    "Execution",
    "LesionRules",
    "LesionScores",
    "Loss",
    "LossConfig",
    "NonFiniteGradientsError",
    "OptimiserStep",
    "OverlapRule",
    "Precision",
    "PrecisionName",
    "RegionRules",
    "RegionScores",
    "StepResult",
    "ThresholdCounts",
    "UNet",
    "UNetConfig",
    "WeightAverage",
    "build_loss",
    "build_unet",
    "choose_precision",
    "mean_over_cases",
    "score_case",
    "score_lesions",
    "score_overlap",
    "segment_regions",
    "sliding_window_probabilities",
    "unet_from_pytorch3dunet",
]
