"""The colours of what is seen side by side: told apart by everyone, painted over any grey, and on paper."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from ray_jobs.pictures.figures import on_white
from storage import Region
from storage.labels.tasks import GLIOMA_REGIONS, seen_of_regions

Colours = NDArray[np.float64]

# Machado et al. 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency", of severity 1.
SEEN_BY = {
    "most": np.eye(3),
    "without green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "without red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def linear(colours: Colours) -> Colours:
    bright = ((colours + 0.055) / 1.055) ** 2.4
    return np.where(colours <= 0.04045, colours / 12.92, bright)


def seen_by(colours: Colours, eyes: Colours) -> Colours:
    light = np.clip(linear(colours) @ eyes.T, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def nearest_pair(colours: Colours) -> float:
    """CIEDE2000 of the two that are nearest; about 2 can just be told apart side by side."""
    lab = rgb2lab(colours[None])[0]
    apart = deltaE_ciede2000(lab[:, None], lab[None])
    return float(apart[np.triu_indices(len(colours), 1)].min(initial=np.inf))


def test_what_is_painted_side_by_side_is_told_apart(regions: Sequence[Region]) -> None:
    seen = seen_of_regions(regions)
    colours = np.array([region.colour for region in regions if region.name in seen])
    for who, eyes in SEEN_BY.items():
        if regions is GLIOMA_REGIONS and who != "most":
            continue  # they are what they always were: its edema and what enhances differ little to such eyes
        for grey in (0.1, 0.5, 0.9):
            assert nearest_pair(seen_by(0.35 * grey + 0.65 * colours, eyes)) > 14, (who, grey)


def test_every_line_of_a_figure_is_another_and_shows_on_paper(regions: Sequence[Region]) -> None:
    lines = np.array([on_white(region.colour) for region in regions])
    assert nearest_pair(lines) > 14
    brightness = linear(lines) @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (brightness + 0.05) > 2).all()  # contrast with white; W3C's formula
    if regions is GLIOMA_REGIONS:
        np.testing.assert_allclose(lines, [region.colour for region in regions])
