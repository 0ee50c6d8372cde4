"""A network as a MONAI bundle: TorchScript and the transforms around it, all of them MONAI's own.

Axes lie x y z, as MONAI has them; the network inside turns them. What none of its transforms does, expressions do.
Letters in names: B batch, M scan, R region, D H W voxels z y x, X Y Z voxels x y z.
"""

import io
import json
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import UNetConfig
from models.region_forest import find_parents
from ray_jobs.exchange.plain_network import FinestLogits, sample_image, without_torchs_warnings
from storage import InputError

FILE, INFERENCE, METADATA = "models/model.ts", "configs/inference.json", "configs/metadata.json"
CARD = "docs/README.md"
RUNS = (
    "After `pip install monai nibabel scikit-image fire pytorch-ignite`, in this bundle's folder, the scans' files in",
    "the order above:",
    "",
    "```",
    "python -m monai.bundle run --config_file configs/inference.json --images \"['a.nii.gz', 'b.nii.gz', …]\"",
    "```",
    "",
    "This writes `<first file>_seg.nii.gz` into `segmentations/`, or into the folder that `--output_dir` names, on the",
    "first file's grid. `models/model.ts` gives probabilities of a window (batch, scan, x, y, z), normalised.",
)
# What it was tried with.
VERSIONS = {"monai": "1.6.1", "nibabel": "5.4.2", "scikit-image": "0.26.0", "pytorch-ignite": "0.5.5"}
_PRED, _BRAIN, _SCANS = "pred", "brain", "image"


class WindowProbabilities(nn.Module):
    """What is averaged over windows: image_BMXYZ (2-D: image_BMXY) in, probabilities_BRXYZ out, mirrored ones too."""

    def __init__(self, network: FinestLogits, dimensions: int, *, mirror: bool) -> None:
        super().__init__()
        self.network = network
        self._turn = (0, 1, *range(dimensions + 1, 1, -1))
        axes = range(2, 2 + dimensions) if mirror else range(0)
        self._mirrored = [list(chosen) for count in range(len(axes) + 1) for chosen in combinations(axes, count)]

    def forward(self, image: Tensor) -> Tensor:
        turned = image.permute(self._turn)
        each = [torch.sigmoid(self.network(turned.flip(axes))).flip(axes) for axes in self._mirrored]
        return (sum(each[1:], each[0]) / len(each)).permute(self._turn)


def encode(network: FinestLogits, config: UNetConfig, description: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the bundle's files but for its card. Raises InputError for what MONAI's own transforms cannot say."""
    if description["window"]["sides"] is None:
        raise InputError(
            "wanted a network that sees windows, this one was validated on whole images at once, which MONAI's sliding "
            "window cannot do; give it as onnx"
        )
    if not description["task"]["skull_stripped"] or description["frame"]["slices_left_out_at_each_end"]:
        raise InputError(
            "wanted scans that are 0 outside the brain and no slices left out, since MONAI's transforms pad and crop "
            "otherwise; give the network as onnx"
        )
    if description["brought_from"] is not None:
        raise InputError(
            "wanted a network that was trained here, this one was brought from nnU-Net, whose windows MONAI's are not; "
            "give it as onnx"
        )
    mirror = bool(description["window"]["mirrored_axes"])
    with torch.inference_mode(), without_torchs_warnings():
        sample = sample_image(config).permute(0, 1, *range(config.dimensions + 1, 1, -1))
        traced = torch.jit.trace(WindowProbabilities(network, config.dimensions, mirror=mirror).eval(), sample)
        script = io.BytesIO()
        torch.jit.save(traced, script)
    configs = {INFERENCE: describe_inference(description), METADATA: describe_bundle(description)}
    encoded = {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in configs.items()}
    return {FILE: script.getvalue(), **encoded}


def describe_inference(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return configs/inference.json."""
    return {
        "imports": ["$import numpy as np", "$import torch", "$from skimage.measure import label"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "dataset_dir": ".",
        "output_dir": "$@bundle_root + '/segmentations'",
        "images": [f"{name}.nii.gz" for name in description["scans"]],
        "datalist": [{_SCANS: "@images"}],
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _before(description)},
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": _inferer(description),
        "postprocessing": {"_target_": "Compose", "transforms": _after(description)},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@network_def.eval()", "$@evaluator.run()"],
    }


def _before(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From files to a normalised image, cropped as the network's training was."""
    brain = {"_target_": "Lambdad", "keys": _BRAIN, "func": "$lambda x: (x != 0).any(0, keepdim=True)"}
    both = [_SCANS, _BRAIN]
    crop = {"_target_": "CropForegroundd", "keys": both, "source_key": _BRAIN, "allow_smaller": False}
    return [
        {"_target_": "LoadImaged", "keys": _SCANS, "ensure_channel_first": True},
        {"_target_": "Orientationd", "keys": _SCANS, "axcodes": description["orientation"][:3], "labels": None},
        {"_target_": "CopyItemsd", "keys": _SCANS, "names": _BRAIN},
        brain,
        *([crop] if "box" in description["frame"]["grid"] else []),
        {"_target_": "Lambdad", "keys": _SCANS, "func": _normalise(description["normalisation"]["scheme"])},
    ]


def _normalise(scheme: str) -> str:
    """An expression, as NormalizeIntensityd takes a scan's own voxels that are not 0, not those where any scan is."""
    values = "x[:, (x != 0).any(0)].double()"
    if scheme == "zscore":
        low, spread = f"{values}.mean(1)", f"{values}.std(1, correction=0)"
    else:
        low = f"{values}.amin(1).clamp(max=0)"
        spread = f"({values}.amax(1) - {low})"
    low, spread = (f"{each}[:, None, None, None]" for each in (low, spread))
    return f"$lambda x: torch.where((x != 0).any(0) & ({spread} > 0), (x - {low}) / {spread}, 0).float()"


def _inferer(description: Mapping[str, Any]) -> dict[str, Any]:
    window = description["window"]
    sides = window["sides"][::-1]
    slices = {"_target_": "SliceInferer", "spatial_dim": 2} if len(sides) == 2 else {"_target_": "SlidingWindowInferer"}
    how = {"roi_size": sides, "sw_batch_size": 2, "overlap": window["overlap"], "mode": "gaussian"}
    return slices | how | {"sigma_scale": 0.125, "padding_mode": "constant", "cval": 0}


def _after(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From probabilities to labels on the first file's grid: models/region_rules.py in MONAI's words."""
    decision, names = description["decision"], [region["name"] for region in description["regions"]]
    head = {"_target_": "MaskIntensityd", "keys": _PRED, "mask_key": _BRAIN}
    back = {"_target_": "Invertd", "keys": _PRED, "transform": "@preprocessing", "orig_keys": _SCANS}
    steps: list[dict[str, Any]] = [
        *([head] if description["window"]["no_region_where_all_scans_are_0"] else []),
        back | {"nearest_interp": False, "to_tensor": True},
        *({"_target_": "Lambdad", "keys": _PRED, "func": func} for func in _decide(description)),
        {"_target_": "SplitDimd", "keys": _PRED, "output_postfixes": names, "update_meta": False},
    ]
    inside = {region["name"]: region["inside"] for region in description["regions"]}
    for place, name in enumerate(description["painted"]):
        key = f"{_PRED}_{name}"
        if inside[name] is not None:
            steps.append({"_target_": "MaskIntensityd", "keys": key, "mask_key": f"{_PRED}_{inside[name]}"})
        if smallest := decision["smallest_mm3"][name]:
            steps.append({"_target_": "Lambdad", "keys": key, "func": _keep_components(smallest)})
        if decision["largest_tumour_only"] and place == 0:
            largest = {"_target_": "KeepLargestConnectedComponentd", "keys": key, "applied_labels": [1]}
            steps.append(largest | {"is_onehot": False, "connectivity": 3})
        if least := decision["empty_below_mm3"][name]:
            func = f"$lambda m: m * (float(m.sum()) * {_at_least(least)})"
            steps.append({"_target_": "Lambdad", "keys": key, "func": func})
    values = {region["name"]: region["value"] for region in description["regions"]}
    painted = "torch.zeros_like(m[:1])"
    for name in description["painted"]:
        painted = f"torch.where(m[{names.index(name)}:{names.index(name) + 1}] > 0, {values[name]}, {painted})"
    return [
        *steps,
        {"_target_": "ConcatItemsd", "keys": [f"{_PRED}_{name}" for name in names], "name": _PRED},
        {"_target_": "Lambdad", "keys": _PRED, "func": f"$lambda m: {painted}"},
        {
            "_target_": "SaveImaged",
            "keys": _PRED,
            "output_dir": "@output_dir",
            "output_postfix": "seg",
            "output_dtype": "$np.uint8",
            "resample": True,  # nothing is: the grid is the first file's. With False MONAI 1.6 takes no turned axes
            "separate_folder": False,
        },
    ]


def _keep_components(smallest_mm3: float) -> str:
    """What leaves out smaller components of a mask of one channel.

    MONAI 1.6's RemoveSmallObjects leaves out those of just this size as well, since scikit-image 0.26.
    """
    kept = f"(np.bincount(c.ravel()) * {_at_least(smallest_mm3)})[c]"
    # On a GPU the mask lies there.
    components = "label(m.cpu().numpy() > 0, connectivity=4)"
    return f"$lambda m: (lambda c: m * torch.from_numpy({kept}).to(m.device))({components})"


def _at_least(size_mm3: float) -> str:
    """The end of an expression that begins with a count of voxels of the mask m: whether they are as much as this."""
    return f"float(np.prod(np.asarray(m.pixdim))) >= {size_mm3 * (1 - 1e-9)!r}"


def _decide(description: Mapping[str, Any]) -> list[str]:
    """Expressions: how far each region is above its threshold, then the innermost, and of rivals the furthest."""
    regions = description["regions"]
    names = [region["name"] for region in regions]
    labels = tuple(tuple(region["values"]) for region in regions)
    parents = find_parents(labels)
    cuts = [float(np.float32(description["decision"]["thresholds"][name])) for name in names]
    cut = f"torch.tensor({cuts}, device=p.device)[:, None, None, None]"
    within = [[other for other, held in enumerate(labels) if set(held) <= set(own)] for own in labels]
    inner = ", ".join(f"a[{each}].amax(0)" for each in within)

    def mask(region: int) -> str:
        rivals = [other for other, parent in enumerate(parents) if parent == parents[region] and other != region]
        furthest = [f"(a[{region}] {'>' if other < region else '>='} a[{other}])" for other in rivals]
        return " & ".join([f"(a[{region}] > -torch.inf)", *furthest])

    return [
        f"$lambda p: torch.where(p >= {cut}, p - {cut}, -torch.inf)",
        f"$lambda a: torch.stack([{inner}])",
        f"$lambda a: torch.stack([{', '.join(mask(region) for region in range(len(names)))}]).float()",
    ]


def describe_bundle(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return configs/metadata.json; under `brats_stream` all that the ONNX file says, too."""
    task, made, sides = description["task"], description["made_with"], description["window"]["sides"]
    scans, regions = description["scans"], description["regions"]
    shape = {"num_channels": len(scans), "spatial_shape": sides[::-1], "dtype": "float32", "is_patch_data": True}
    image = {"type": "image", "format": "magnitude", "modality": "MR", "value_range": [], **shape}
    pred = {"type": "image", "format": "segmentation", "dtype": "float32", "value_range": [0, 1], "is_patch_data": True}
    return {
        "version": made["brats-stream"],
        "changelog": {made["brats-stream"]: "written by brats-stream"},
        "monai_version": VERSIONS["monai"],
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {name: version for name, version in VERSIONS.items() if name != "monai"},
        "name": f"brats-stream {task['name']}".strip(),
        "task": f"segmentation: {task['title']}".removesuffix(": "),
        "description": f"Probabilities of {', '.join(region['title'] for region in regions)} from {', '.join(scans)}.",
        "authors": "",
        "copyright": "",
        "data_type": "nibabel",
        "intended_use": "Research. It is no medical device.",
        "eval_metrics": {"see": CARD},
        "network_data_format": {
            "inputs": {"image": image | {"channel_def": {str(index): name for index, name in enumerate(scans)}}},
            "outputs": {
                "pred": pred
                | {"num_channels": len(regions), "spatial_shape": sides[::-1]}
                | {"channel_def": {str(index): region["title"] for index, region in enumerate(regions)}}
            },
        },
        "brats_stream": dict(description),
    }
