"""Surfaces and their pictures against what geometry says of a ball."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ray_jobs.pictures.surfaces import Layer, Surface, blend, draw_surface, look, make_surface

RADIUS = 12.0
SPACING = (2.0, 1.0, 0.5)  # z y x
CENTRE = np.array([12.5, 21.0, 30.0])  # x y z in mm


def ball(radius: float = RADIUS, centre: NDArray[np.float64] = CENTRE) -> NDArray[np.bool_]:
    axes = [np.arange(n) * mm for n, mm in zip((36, 44, 60), SPACING, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    inside: NDArray[np.bool_] = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2
    return inside


def surface_of(mask: NDArray[np.bool_], step: int = 1) -> Surface:
    surface = make_surface(mask, SPACING, step=step)
    assert surface is not None
    return surface


@pytest.mark.parametrize("step", [1, 2])
def test_a_balls_surface_lies_where_the_ball_ends_in_millimetres(step: int) -> None:
    surface = surface_of(ball(), step)
    distance = np.linalg.norm(surface.vertices_V3 - CENTRE, axis=1)
    assert abs(distance.mean() - RADIUS) < 0.5 * step and distance.std() < 0.6 * step
    edges = np.sort(surface.faces_F3[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    _, shared = np.unique(edges, axis=0, return_counts=True)
    assert set(shared) == {2}  # closed: every edge belongs to two triangles


def test_a_larger_step_means_fewer_triangles() -> None:
    assert len(surface_of(ball(), 2).faces_F3) < 0.4 * len(surface_of(ball(), 1).faces_F3)


def test_nothing_and_next_to_nothing() -> None:
    empty = np.zeros((5, 5, 5), bool)
    assert make_surface(empty, SPACING) is None
    empty[2, 2, 2] = True  # blurred away, were it not taken as it is
    np.testing.assert_allclose(surface_of(empty).vertices_V3.mean(0), [1.0, 2.0, 4.0], atol=1e-5)


@pytest.mark.parametrize("towards", [(0, 1, 0), (-1, 0, 0), (1, 0.5, -0.7)])
def test_a_ball_looks_like_a_disc(towards: tuple[float, float, float]) -> None:
    camera = look(towards, (0, 0, 1), middle=CENTRE.tolist(), radius_mm=20, size=160)
    layer = draw_surface(surface_of(ball()), camera)
    seen = np.isfinite(layer.depth_HW)
    assert seen.sum() * camera.mm_per_pixel**2 == pytest.approx(np.pi * RADIUS**2, rel=0.06)
    assert (ndimage.binary_fill_holes(seen) == seen).all()  # no pixel falls between two triangles
    # The front, not the back: the middle is a radius nearer than the ball's centre, and faces the camera.
    assert layer.depth_HW[80, 80] == pytest.approx(-RADIUS, abs=1.0)
    assert layer.facing_HW[78:83, 78:83].min() > 0.9
    rim = seen & ~np.isfinite(np.roll(layer.depth_HW, 2, axis=0))
    assert layer.facing_HW[rim].mean() < 0.45


def test_a_triangle_covers_the_pixels_whose_middles_lie_in_it_and_is_as_deep_as_its_plane() -> None:
    corners = np.array([[1.2, 0, 2.1], [17.6, 3, 5.3], [6.4, -6, 18.9]], np.float32)  # x right, y away, z up
    normals = np.repeat(np.array([[0, -1, 0]], np.float32), 3, axis=0)
    camera = look((0, 1, 0), (0, 0, 1), middle=(10, 0, 10), radius_mm=10, size=20)  # a pixel is a millimetre
    there, back = (
        draw_surface(Surface(vertices_V3=corners, faces_F3=np.array([order]), normals_V3=normals), camera)
        for order in ((0, 1, 2), (0, 2, 1))
    )
    seen, other = (there, back) if np.isfinite(there.depth_HW).any() else (back, there)
    assert not np.isfinite(other.depth_HW).any()  # it looks away
    rows, columns = np.indices((20, 20))
    x, z = columns + 0.5, 20 - rows - 0.5
    inside = np.linalg.solve(np.array([corners[:, 0], corners[:, 2], np.ones(3)]), [x.ravel(), z.ravel(), np.ones(400)])
    depth = np.where((inside >= 0).all(axis=0), corners[:, 1] @ inside, np.inf).reshape(20, 20)
    np.testing.assert_allclose(seen.depth_HW, depth, atol=1e-4)
    assert seen.facing_HW[np.isfinite(depth)] == pytest.approx(1)


def test_left_is_on_the_right_of_a_face_and_up_is_up() -> None:
    camera = look((0, 1, 0), (0, 0, 1), middle=CENTRE.tolist(), radius_mm=20, size=100)  # from the front, LPS
    spot = draw_surface(surface_of(ball(3, CENTRE + np.array([6, 0, 9]))), camera)  # to the patient's left, above
    rows, columns = np.nonzero(np.isfinite(spot.depth_HW))
    assert columns.mean() == pytest.approx(50 + 6 / camera.mm_per_pixel, abs=2)
    assert rows.mean() == pytest.approx(50 - 9 / camera.mm_per_pixel, abs=2)


def flat(depth: float, opacity: float) -> tuple[Layer, NDArray[np.float32]]:
    """A layer all at one depth, but for a hole in the first pixel."""
    depth_HW, light_HW, facing_HW = (np.full((2, 2), value, np.float32) for value in (depth, 0.9, 1.0))
    depth_HW[0, 0] = np.inf
    return Layer(depth_HW=depth_HW, light_HW=light_HW, facing_HW=facing_HW), np.full((2, 2), opacity, np.float32)


@pytest.mark.parametrize("order", [1, -1])
def test_near_things_cover_far_ones_by_their_opacity(order: int) -> None:
    (near, half), (far, solid) = flat(1.0, 0.5), flat(5.0, 1.0)
    layers = [(near, (1.0, 0.0, 0.0), half), (far, (0.0, 1.0, 0.0), solid)]
    picture = blend(layers[::order], (0.2, 0.2, 0.2), 2)
    np.testing.assert_allclose(picture[0, 0], 0.2)
    np.testing.assert_allclose(picture[1, 1], [0.5 * 0.99, 0.5 * 0.99, 0], atol=1e-6)
