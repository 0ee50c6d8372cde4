"""Where DALI's nearest neighbour may pick another voxel on a GPU than on a CPU, and patches for which it may not.

Along an axis of N voxels shown by n, it takes voxel floor((i + 1/2) * N / n) for place i. A CPU adds up N / n (along z
and y), a GPU multiplies once; both round to float32. Where a place comes to lie on the border of two voxels, rounding
decides: with 64 voxels 17 of the 33 sizes from 32 to 64 pick other planes (tests/benchmarks/test_ties.py does both
sums). A warp is the same with three terms: a CPU adds up the step along x.

A place lies on a border if (2 i + 1) * N = 2 * n * m for some whole m. With an odd N it never does: the left side is
odd, the right one even. The same holds about the middle of an odd patch, which is the middle of a voxel, for steps
that are fractions with odd denominators. So patches here have odd sides, zooms show 4/5, and rotations are those of
the triangle with sides 3, 4 and 5, whose sine and cosine are fifths: the nearest place is 1/1250 voxel off a border,
the largest error of 64 sums 1/4000.
"""

from math import atan2, degrees, gcd

ZOOM = 4 / 5
ROTATION_DEGREES = degrees(atan2(3, 4))


def meets_a_border(voxels: int, coarse: int) -> bool:
    """Whether the middle of one of `coarse` voxels lies on the border of two of `voxels` that cover the same."""
    common = gcd(voxels, coarse)
    # The smallest odd multiple of N / n that is even, if there is one: n must go into 2 i + 1, and 2 into N.
    return voxels // common % 2 == 0 and coarse // common % 2 == 1


def side_without_borders(side: int) -> int:
    """The side, or the next smaller one, of which no coarser grid has a place on a border."""
    free = (each for each in range(side, 0, -1) if not any(meets_a_border(each, n) for n in range(1, each + 1)))
    return next(free)
