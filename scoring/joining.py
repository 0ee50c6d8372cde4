"""How the programs of 2024 and 2025 join lesions of one tissue that touch the same lesion of another tissue.

Not every lesion that touches: one that touches several neighbours goes with the first only, and where a single pair
touches nothing is joined. What comes of it hangs on the lesions' numbers, and so on the order of `cc3d`.
Letters in names: D H W voxels z y x.
"""

from itertools import product

import numpy as np

from scoring.components import NewNumbers, Numbers

# From a voxel to those that touch it by a face or an edge.
_STEPS = np.array([step for step in product((-1, 0, 1), repeat=3) if np.count_nonzero(step) <= 2])


def find_touching(lesions_DHW: Numbers, neighbours_DHW: Numbers) -> list[tuple[int, int]]:
    """Every pair of a lesion and a neighbour that touch by a face or an edge, in the order of their numbers."""
    if not lesions_DHW.any() or not neighbours_DHW.any():
        return []
    padded = np.pad(neighbours_DHW, 1)
    where = np.nonzero(lesions_DHW)
    lesions, start = lesions_DHW[where], np.ravel_multi_index([axis + 1 for axis in where], padded.shape)
    across = int(padded.max()) + 1
    flat = padded.ravel()
    pairs: set[int] = set()
    for step in _STEPS @ (np.array(padded.strides) // padded.itemsize):
        neighbours = flat[start + step]
        touching = neighbours > 0
        pairs.update(np.unique(lesions[touching] * across + neighbours[touching]).tolist())
    return [divmod(pair, across) for pair in sorted(pairs)]


def join_by_neighbour(lesions_DHW: Numbers, neighbours_DHW: Numbers) -> NewNumbers:
    """Lesions whose first touching neighbour is the same become one, with a new number behind all others."""
    highest = int(lesions_DHW.max(initial=0))
    new = np.arange(highest + 1)
    pairs = find_touching(lesions_DHW, neighbours_DHW)
    if len(pairs) <= 1:
        return new
    behind: dict[int, int] = {}
    settled: set[int] = set()
    for lesion, neighbour in pairs:
        number = behind.setdefault(neighbour, highest + 1 + len(behind))
        if lesion not in settled:
            settled.add(lesion)
            new[lesion] = number
    return new
