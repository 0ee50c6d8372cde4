"""Probabilities of a whole volume from a network that sees windows of it.

Letters in names: B windows in a batch, M modality, R region, D H W voxels z y x.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations, product

import torch
from torch import Tensor
from torch.nn import functional

Predict = Callable[[Tensor], Tensor]
"""image_BMDHW (or image_BMHW) -> logits_BRDHW (or logits_BRHW)."""


def sliding_window_probabilities(
    predict: Predict | Sequence[Predict],
    image_MDHW: Tensor,
    *,
    window: Sequence[int] | None,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    device: torch.device | None = None,
    outside: Sequence[float] | None = None,
    as_nnunet: bool = False,
) -> Tensor:
    """Float32 probabilities_RDHW: the Gaussian-weighted mean of the windows' sigmoids, on the image's device.

    predict: a network's logits, or several networks' whose probabilities are averaged.
    window: sides of a window (D, H, W); (H, W) for a 2-D network, which then sees slice after slice; None for the
        whole volume at once. A volume smaller than the window is padded on both sides, with zeros or `outside`.
    overlap: share of a window's side that the next one covers again, 0 <= overlap < 1.
    mirror_axes: spatial axes (0 = D) whose mirrorings are averaged as well: 2^n predictions a window.
    device: where windows are predicted and added up; default the image's. Another one holds, beside the windows and
        activations, a slab one window deep only, so volumes larger than a GPU's memory may stay on the CPU.
    outside: for each modality what lies outside the volume; default 0.
    as_nnunet: windows evenly spread, the mean of logits, of which the sigmoid is taken, and weights as nnU-Net v2 has
        them (inference/sliding_window_prediction.py), here in float32.
    Equal to MONAI's sliding_window_inference(mode="gaussian") of the sigmoids, window positions included.
    Raises ValueError for windows, overlaps and axes that don't make sense.
    """
    networks = [predict] if callable(predict) else list(predict)
    window_DHW, flat = _check(networks, image_MDHW, window, overlap, batch_size, mirror_axes)
    device = device or image_MDHW.device
    padded_MDHW, inner = _pad(image_MDHW, window_DHW, outside)
    sides = padded_MDHW.shape[1:]
    weight_DHW = (_nnunet_weights if as_nnunet else gaussian_weights)(window_DHW).to(device, non_blocking=True)
    find_starts = _even_starts if as_nnunet else _starts
    starts = [find_starts(side, length, overlap) for side, length in zip(sides, window_DHW, strict=True)]
    counts = range(len(mirror_axes) + 1)
    axes = [chosen for count in counts for chosen in combinations(sorted(mirror_axes), count)]
    corners = list(product(*starts))
    # One buffer for all batches, filled window by window: torch.stack is several times slower on strided views.
    buffer_BMDHW = padded_MDHW.new_empty((min(batch_size, len(corners)), len(padded_MDHW), *window_DHW), device=device)
    sums: _WeightedSums | None = None
    with torch.no_grad():
        for first in range(0, len(corners), batch_size):
            batch = corners[first : first + batch_size]
            image_BMDHW = buffer_BMDHW[: len(batch)]
            for window_MDHW, start in zip(image_BMDHW, batch, strict=True):
                window_MDHW.copy_(padded_MDHW[(slice(None), *_block(start, window_DHW))])
            weighted_BRDHW = _mean_output(networks, image_BMDHW, axes, flat=flat, sigmoid=not as_nnunet)
            weighted_BRDHW *= weight_DHW
            if sums is None:
                shape = (weighted_BRDHW.shape[1], *sides)
                sums = _WeightedSums(shape, window_DHW[0], device=device, home=image_MDHW.device)
            for start, weighted_RDHW in zip(batch, weighted_BRDHW, strict=True):
                sums.add(start, weighted_RDHW, weight_DHW)
    assert sums is not None
    mean_RDHW = sums.finish()[(slice(None), *inner)].contiguous()
    return mean_RDHW.sigmoid_() if as_nnunet else mean_RDHW


def gaussian_weights(window_DHW: Sequence[int]) -> Tensor:
    """Float32 weight_DHW, 1 in the middle, standard deviation an eighth of each side, nowhere below 0.001."""
    weight_DHW = _gaussian(window_DHW, [(length - 1) / 2 for length in window_DHW], torch.float32)
    # The floor keeps the corners of the volume, which only one window sees, from being 0 / 0.
    return weight_DHW.clamp(min=max(float(weight_DHW.min()), 1e-3))


def _nnunet_weights(window_DHW: Sequence[int]) -> Tensor:
    """As `gaussian_weights`, around the voxel at half of each side, which is right of the middle of even ones."""
    return _gaussian(window_DHW, [length // 2 for length in window_DHW], torch.float64).float()


def _gaussian(window_DHW: Sequence[int], middle_DHW: Sequence[float], dtype: torch.dtype) -> Tensor:
    """weight_DHW, 1 in the middle, standard deviation an eighth of each side."""
    weight_DHW = torch.ones((), dtype=dtype)
    for length, middle in zip(window_DHW, middle_DHW, strict=True):
        offset = torch.arange(length, dtype=dtype) - middle
        weight_DHW = weight_DHW[..., None] * torch.exp(offset.square() / (-2 * (0.125 * length) ** 2))
    return weight_DHW


class _WeightedSums:
    """Running sums of the windows and of their weights.

    Where windows are predicted at the image's home the sums become the result in place. Elsewhere only the planes that
    windows still reach are kept there, a slab; planes behind them are divided and sent home.
    """

    def __init__(self, shape_RDHW: Sequence[int], depth: int, *, device: torch.device, home: torch.device) -> None:
        regions, planes, height, width = shape_RDHW
        self._in_place = device == home
        depth = planes if self._in_place else depth
        self._sum_RDHW = torch.zeros((regions, depth, height, width), dtype=torch.float32, device=device)
        self._weight_DHW = torch.zeros((depth, height, width), dtype=torch.float32, device=device)
        self._result_RDHW = self._sum_RDHW if self._in_place else torch.empty(shape_RDHW, device=home)
        self._first = 0  # plane of the volume that the slab begins with

    def add(self, start: Sequence[int], weighted_RDHW: Tensor, weight_DHW: Tensor) -> None:
        """Add a window; `start` never goes back along D."""
        if not self._in_place and start[0] > self._first:
            self._advance(start[0] - self._first)
        block = _block((start[0] - self._first, *start[1:]), weight_DHW.shape)
        self._sum_RDHW[(slice(None), *block)] += weighted_RDHW
        self._weight_DHW[block] += weight_DHW

    def finish(self) -> Tensor:
        """The probabilities of the whole volume."""
        self._send(self._sum_RDHW.shape[1])
        return self._result_RDHW

    def _advance(self, planes: int) -> None:
        self._send(planes)
        for sums, axis in ((self._sum_RDHW, 1), (self._weight_DHW, 0)):
            remaining = sums.shape[axis] - planes
            kept = sums.narrow(axis, planes, remaining)
            # Copying within a tensor is safe only where the two ranges don't meet.
            sums.narrow(axis, 0, remaining).copy_(kept if planes >= remaining else kept.clone())
            sums.narrow(axis, remaining, planes).zero_()
        self._first += planes

    def _send(self, planes: int) -> None:
        self._sum_RDHW[:, :planes] /= self._weight_DHW[:planes]
        if not self._in_place:
            self._result_RDHW[:, self._first : self._first + planes].copy_(self._sum_RDHW[:, :planes])


def _check(
    networks: Sequence[Predict],
    image_MDHW: Tensor,
    window: Sequence[int] | None,
    overlap: float,
    batch_size: int,
    mirror_axes: Sequence[int],
) -> tuple[tuple[int, int, int], bool]:
    """The window in three sides, and whether the network is 2-D."""
    if image_MDHW.ndim != 4:
        raise ValueError(f"wanted an image (M, D, H, W), got {tuple(image_MDHW.shape)}")
    sides = tuple(image_MDHW.shape[1:] if window is None else window)
    flat = len(sides) == 2
    if len(sides) not in (2, 3) or min(sides) < 1:
        raise ValueError(f"wanted a window of two or three positive sides, got {sides}")
    if not 0 <= overlap < 1 or batch_size < 1 or not networks:
        raise ValueError(
            "wanted 0 <= overlap < 1, batch_size >= 1 and at least one network, "
            f"got {overlap}, {batch_size} and {len(networks)}"
        )
    allowed = {1, 2} if flat else {0, 1, 2}
    if not set(mirror_axes) <= allowed or len(set(mirror_axes)) < len(mirror_axes):
        raise ValueError(f"mirror_axes: wanted different ones of {sorted(allowed)} (0 is D), got {tuple(mirror_axes)}")
    depth, height, width = (1, *sides) if flat else sides
    return (depth, height, width), flat


def _pad(
    image_MDHW: Tensor, window_DHW: Sequence[int], outside: Sequence[float] | None
) -> tuple[Tensor, tuple[slice, ...]]:
    """The image, at least as large as the window, and where the original lies in it."""
    amounts: list[int] = []
    inner: list[slice] = []
    for side, length in zip(image_MDHW.shape[1:], window_DHW, strict=True):
        missing = max(length - side, 0)
        amounts = [missing // 2, missing - missing // 2, *amounts]  # functional.pad counts from the last axis
        inner.append(slice(missing // 2, missing // 2 + side))
    if not any(amounts):
        return image_MDHW, tuple(inner)
    padded_MDHW = functional.pad(image_MDHW, amounts)
    if outside is not None:
        padded_MDHW[:] = padded_MDHW.new_tensor(outside).reshape(-1, 1, 1, 1)
        padded_MDHW[(slice(None), *inner)] = image_MDHW
    return padded_MDHW, tuple(inner)


def _starts(side: int, length: int, overlap: float) -> list[int]:
    """Where windows begin along one axis; the last one is moved back to end with the image."""
    step = max(int(length * (1 - overlap)), 1)
    return [*range(0, side - length, step), side - length]


def _even_starts(side: int, length: int, overlap: float) -> list[int]:
    """Where as few windows as have this overlap at least begin, evenly spread."""
    count = math.ceil((side - length) / (length * (1 - overlap))) + 1
    step = (side - length) / max(count - 1, 1)
    return [round(step * index) for index in range(count)]


def _block(start: Sequence[int], sides: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(at, at + side) for at, side in zip(start, sides, strict=True))


def _mean_output(
    networks: Sequence[Predict], image_BMDHW: Tensor, axes: Sequence[tuple[int, ...]], *, flat: bool, sigmoid: bool
) -> Tensor:
    """Float32 probabilities_BRDHW, or logits, averaged over networks and mirrorings."""
    total_BRDHW: Tensor | None = None
    for mirrored in axes:
        flips = [axis + 2 for axis in mirrored]
        image = image_BMDHW.flip(flips) if flips else image_BMDHW
        for predict in networks:
            logits = predict(image.squeeze(2)).unsqueeze(2) if flat else predict(image)
            # In the default layout, whatever the network's: the weights and sums have that, too.
            output = logits.to(torch.float32, memory_format=torch.contiguous_format)
            output = torch.sigmoid(output) if sigmoid else output
            output = output.flip(flips) if flips else output
            total_BRDHW = output if total_BRDHW is None else total_BRDHW + output
    assert total_BRDHW is not None
    count = len(axes) * len(networks)
    return total_BRDHW if count == 1 else total_BRDHW / count
