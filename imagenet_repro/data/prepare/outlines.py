"""Outlines of ten classes of objects, built from parts that the classes share and that move in their joints.

An outline is a list of closed polygons, one for each part, whose union is the object. Coordinates are about those of
the square [-1, 1] x [-1, 1], with y pointing down. A part is an ellipse, a limb with round ends or a polygon, so that
what tells the classes apart is how the parts are arranged, not which parts there are.

Proportions and joints vary by the numbers that `Draws` yields. Angles are given as t = tan(angle / 2), since sine and
cosine then need additions, multiplications and divisions only, which give the same result on every machine.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt64

Points = Float64[np.ndarray, "_ 2"]
Outline = list[Points]
Point = tuple[float, float]

_STEPS = np.arange(6) / 6.0
_QUARTER = np.stack([(1 - _STEPS**2) / (1 + _STEPS**2), 2 * _STEPS / (1 + _STEPS**2)], 1)
_HALF = np.concatenate([_QUARTER, np.stack([-_QUARTER[:, 1], _QUARTER[:, 0]], 1)])
CIRCLE = np.concatenate([_HALF, -_HALF])  # float64 [24, 2]: points of the unit circle in order


class Draws:
    """Uniform random numbers, one after another from the raw words of a generator."""

    def __init__(self, words: UInt64[np.ndarray, " n"]):
        self._numbers = ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).tolist()
        self._used = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        self._used += 1
        return low + (high - low) * self._numbers[self._used - 1]

    def integer(self, count: int) -> int:
        """Return a whole number from 0 to count - 1."""
        return int(self.uniform(0, count))

    def sign(self) -> float:
        """Return -1 or 1, each with probability 1/2."""
        return -1.0 if self.uniform() < 0.5 else 1.0


def turn(point: Point, t: float) -> Point:
    """Return the point turned about the origin by the angle of tan(angle / 2) = t, clockwise as y points down."""
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return cosine * point[0] - sine * point[1], sine * point[0] + cosine * point[1]


def beside(point: Point, offset: Point) -> Point:
    """Return the sum of two points."""
    return point[0] + offset[0], point[1] + offset[1]


def ellipse(centre: Point, half_width: float, half_height: float, t: float = 0.0) -> Points:
    """Return an ellipse, turned about its centre by the angle of t."""
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    x, y = CIRCLE[:, 0] * half_width, CIRCLE[:, 1] * half_height
    return np.stack([centre[0] + cosine * x - sine * y, centre[1] + sine * x + cosine * y], 1)


def polygon(*corners: Point) -> Points:
    """Return the polygon of these corners, with four points on each side so that it can bend."""
    ends = np.array(corners, np.float64)
    shares = np.arange(4)[None, :, None] / 4.0
    return (ends[:, None] + (np.roll(ends, -1, 0) - ends)[:, None] * shares).reshape(-1, 2)


def limb(joints: list[Point], radii: list[float]) -> Outline:
    """Return a chain of tapered segments through the joints, with a disc of its radius at each joint."""
    parts = [ellipse(joint, radius, radius) for joint, radius in zip(joints, radii, strict=True)]
    for (start, first), (end, last) in zip(
        zip(joints, radii, strict=True), zip(joints[1:], radii[1:], strict=True), strict=False
    ):
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
        nx, ny = -dy / length, dx / length
        parts.append(
            polygon(
                (start[0] + nx * first, start[1] + ny * first),
                (end[0] + nx * last, end[1] + ny * last),
                (end[0] - nx * last, end[1] - ny * last),
                (start[0] - nx * first, start[1] - ny * first),
            )
        )
    return parts


def bird(draws: Draws) -> Outline:
    """Body, head, beak, tail, a raised or lowered wing, two legs."""
    length, tilt = draws.uniform(0.42, 0.55), draws.uniform(-0.25, 0.05)
    body = ellipse((0, 0), length, draws.uniform(0.24, 0.32), tilt)
    head = beside(turn((length, 0), tilt), (draws.uniform(-0.05, 0.1), draws.uniform(-0.28, -0.12)))
    radius, beak = draws.uniform(0.16, 0.21), draws.uniform(0.18, 0.32)
    tip = beside(head, turn((radius + beak, 0), draws.uniform(-0.15, 0.25)))
    end = turn((-length, 0), tilt)
    tail = draws.uniform(0.35, 0.6)
    wing, spread = turn((-0.25, -draws.uniform(0.6, 0.95)), draws.uniform(-0.35, 0.25)), draws.uniform(0.2, 0.32)
    parts = [
        body,
        ellipse(head, radius, radius),
        polygon(beside(head, (0.02, -0.1)), tip, beside(head, (0.02, 0.1))),
        polygon(beside(end, (0.15, -0.1)), beside(end, (-tail, -0.16)), beside(end, (-tail, 0.14)), (end[0], 0.1)),
        polygon((spread, 0), (-spread, 0), wing),
    ]
    for foot in (-0.08, 0.14):
        parts += limb([(foot, 0.2), (foot + draws.uniform(-0.1, 0.1), draws.uniform(0.5, 0.65))], [0.045, 0.035])
    return parts


def car(draws: Draws) -> Outline:
    """Body, cabin and two wheels."""
    half, height = draws.uniform(0.85, 1.0), draws.uniform(0.24, 0.34)
    roof, front, back = draws.uniform(0.28, 0.42), draws.uniform(0.3, 0.55), draws.uniform(0.45, 0.8)
    wheel, base = draws.uniform(0.17, 0.23), draws.uniform(0.52, 0.62)
    left, right = -back * half, front * half
    return [
        polygon((-half, -0.02), (half, 0.04), (half, height), (-half, height)),
        polygon((left, 0.02), (left + draws.uniform(0.08, 0.25), -roof), (right - 0.25, -roof), (right, 0.04)),
        ellipse((-base, height), wheel, wheel),
        ellipse((base, height), wheel, wheel),
    ]


def chair(draws: Draws) -> Outline:
    """Seat, back and four legs; the hind legs are seen between the front legs."""
    width, seat = draws.uniform(0.4, 0.5), draws.uniform(0.0, 0.15)
    back, lean = draws.uniform(0.8, 1.0), draws.uniform(-0.3, -0.05)
    splay, thickness, leg = draws.uniform(0.0, 0.18), draws.uniform(0.05, 0.09), draws.uniform(0.65, 0.85)
    top = -width + lean
    parts = [
        polygon((-width, seat - 0.08), (width, seat - 0.06), (width, seat + 0.08), (-width, seat + 0.08)),
        polygon(
            (-width, seat), (top, seat - back), (top + draws.uniform(0.14, 0.22), seat - back), (-width + 0.2, seat)
        ),
    ]
    for start, shift in ((-width + 0.06, -splay), (width - 0.06, splay), (-width + 0.3, splay / 2), (width - 0.3, 0)):
        length = leg if abs(start) > width - 0.1 else leg * 0.85
        parts += limb([(start, seat), (start + shift, seat + length)], [thickness, thickness * 0.8])
    return parts


def cup(draws: Draws) -> Outline:
    """Bowl and handle."""
    top, bottom, height = draws.uniform(0.5, 0.65), draws.uniform(0.32, 0.55), draws.uniform(0.45, 0.7)
    reach, drop = draws.uniform(0.28, 0.42), draws.uniform(0.24, 0.38)
    centre = ((top + bottom) / 2 - 0.04, draws.uniform(-0.12, 0.05))
    ring = [
        beside(centre, (reach * x, drop * y)) for x, y in ((-0.1, -1), (0.6, -0.85), (1, 0), (0.6, 0.85), (-0.1, 1))
    ]
    return [
        polygon((-top, -height), (top, -height), (bottom, height), (-bottom, height)),
        ellipse((0, -height), top, draws.uniform(0.06, 0.14)),
        ellipse((0, height), bottom, draws.uniform(0.04, 0.12)),
        *limb(ring, [draws.uniform(0.06, 0.09)] * len(ring)),
    ]


def dog(draws: Draws) -> Outline:
    """Trunk, four legs that walk, neck, head with snout and ear, tail."""
    half, thick = draws.uniform(0.45, 0.6), draws.uniform(0.17, 0.24)
    neck = turn((0.32, -0.22), draws.uniform(-0.25, 0.2))
    head = beside((half, -0.05), neck)
    snout = beside(head, turn((draws.uniform(0.26, 0.36), 0.06), draws.uniform(-0.15, 0.25)))
    parts = limb([(-half, 0), (half, draws.uniform(-0.08, 0.02))], [thick, thick * draws.uniform(0.95, 1.2)])
    parts += limb([(half, -0.05), head], [0.15, 0.13])
    parts += limb([head, snout], [0.17, 0.08])
    parts.append(polygon(beside(head, (-0.14, -0.05)), beside(head, (-0.1, -0.34)), beside(head, (0.08, -0.1))))
    parts += limb(
        [(-half, -0.05), beside((-half, -0.05), turn((-0.42, -0.12), draws.uniform(-0.4, 0.5)))], [0.07, 0.04]
    )
    length = draws.uniform(0.5, 0.68)
    for hip in (-half + 0.02, -half + 0.16, half - 0.16, half - 0.02):
        knee = beside((hip, 0.08), turn((0, length / 2), draws.uniform(-0.2, 0.2)))
        parts += limb([(hip, 0.08), knee, beside(knee, (draws.uniform(-0.08, 0.08), length / 2))], [0.1, 0.07, 0.06])
    return parts


def fish(draws: Draws) -> Outline:
    """Body, a tail that beats, and fins above and below."""
    half, height = draws.uniform(0.55, 0.68), draws.uniform(0.24, 0.38)
    beat, spread, length = draws.uniform(-0.2, 0.2), draws.uniform(0.26, 0.42), draws.uniform(0.35, 0.5)
    root = (-half + 0.1, 0.0)
    upper, lower = turn((-length, -spread), beat), turn((-length, spread), beat)
    notch = turn((-length * 0.7, 0), beat)
    fin, belly = draws.uniform(0.15, 0.32), draws.uniform(0.1, 0.25)
    return [
        ellipse((0.05, 0), half, height),
        polygon(root, beside(root, upper), beside(root, notch), beside(root, lower)),
        polygon((0.25, -height * 0.8), (-0.2, -height - fin), (-0.3, -height * 0.7)),
        polygon((0.15, height * 0.8), (-0.1, height + belly), (-0.2, height * 0.8)),
    ]


def hand(draws: Draws) -> Outline:
    """Palm, four fingers that spread, and a thumb."""
    width, spread = draws.uniform(0.3, 0.36), draws.uniform(0.1, 0.24)
    parts = [
        polygon((-width, -0.1), (width, -0.1), (width * 0.85, 0.55), (-width * 0.85, 0.55)),
        *limb([(0, 0.45), (draws.uniform(-0.05, 0.05), 0.9)], [width * 0.75, width * 0.65]),
    ]
    radius = draws.uniform(0.08, 0.1)
    for number, length in enumerate((0.56, 0.68, 0.64, 0.48)):
        root = (width * (-0.78 + 0.52 * number), -0.08)
        reach = length * draws.uniform(0.85, 1.1)
        tip = beside(root, turn((0, -reach), spread * (number - 1.5) + draws.uniform(-0.04, 0.04)))
        parts += limb([root, tip], [radius, radius * 0.85])
    root = (-width * 0.8, 0.35)
    knuckle = beside(root, turn((-0.32, -0.08), draws.uniform(-0.05, 0.3)))
    tip = beside(knuckle, turn((-0.12, -0.24), draws.uniform(-0.2, 0.2)))
    return parts + limb([root, knuckle, tip], [0.13, 0.1, 0.08])


def person(draws: Draws) -> Outline:
    """Head, trunk, and arms and legs of two segments each."""
    shoulder, hip = draws.uniform(0.2, 0.27), draws.uniform(0.13, 0.18)
    parts = [
        ellipse((draws.uniform(-0.05, 0.05), -0.8), 0.14, 0.17),
        polygon((-shoulder, -0.58), (shoulder, -0.58), (hip, 0.08), (-hip, 0.08)),
        *limb([(0, -0.7), (0, -0.55)], [0.07, 0.09]),
    ]
    for side in (-1.0, 1.0):
        start = (side * shoulder, -0.52)
        elbow = beside(start, turn((0, 0.32), -side * draws.uniform(0.02, 0.8)))
        wrist = beside(elbow, turn((0, 0.32), -side * draws.uniform(-0.2, 1.2)))
        parts += limb([start, elbow, wrist], [0.08, 0.065, 0.05])
        start = (side * hip * 0.7, 0.05)
        knee = beside(start, turn((0, 0.44), -side * draws.uniform(-0.02, 0.25)))
        foot = beside(knee, turn((0, 0.44), -side * draws.uniform(-0.1, 0.15)))
        parts += limb([start, knee, foot], [0.11, 0.085, 0.06])
    return parts


def plane(draws: Draws) -> Outline:
    """Fuselage, two swept wings, two tailplanes and a fin, from above."""
    half, radius = draws.uniform(0.85, 1.0), draws.uniform(0.08, 0.12)
    span, sweep, chord = draws.uniform(0.75, 0.95), draws.uniform(0.05, 0.5), draws.uniform(0.26, 0.4)
    tail, rear = draws.uniform(0.28, 0.4), draws.uniform(0.14, 0.2)
    parts = limb([(-half, 0), (half * 0.8, 0), (half, 0)], [radius * 0.5, radius, radius * 0.6])
    for side in (-1.0, 1.0):
        root = draws.uniform(0.1, 0.2)
        tip, end = root - sweep, -half - 0.05
        parts += [
            polygon((root + chord / 2, 0), (tip, side * span), (tip - 0.12, side * span), (root - chord / 2, 0)),
            polygon((rear - half + 0.05, 0), (end, side * tail), (end - 0.1, side * tail), (-half, 0)),
        ]
    return parts


def tree(draws: Draws) -> Outline:
    """Trunk and a crown of boughs, round or pointed."""
    base, top = draws.uniform(0.1, 0.17), draws.uniform(0.06, 0.1)
    foot = draws.uniform(0.75, 0.95)
    parts = [polygon((-top, -0.1), (top, -0.1), (base, foot), (-base, foot))]
    if draws.uniform() < 0.3:
        width = draws.uniform(0.42, 0.6)
        for number in range(3):
            y, half = 0.35 - 0.42 * number, width * (1 - 0.24 * number)
            parts.append(polygon((-half, y), (half, y), (draws.uniform(-0.05, 0.05), y - 0.62)))
        return parts
    for x, y in ((0, -0.55), (-0.34, -0.3), (0.34, -0.3), (-0.18, -0.05), (0.2, -0.08)):
        centre = (x + draws.uniform(-0.08, 0.08), y + draws.uniform(-0.1, 0.06))
        radius = draws.uniform(0.26, 0.38)
        parts.append(ellipse(centre, radius, radius * draws.uniform(0.85, 1.1)))
    return parts


class ShapeClass(NamedTuple):
    """A class of objects."""

    name: str
    draw: Callable[[Draws], Outline]


CLASSES = tuple(
    ShapeClass(draw.__name__, draw) for draw in (bird, car, chair, cup, dog, fish, hand, person, plane, tree)
)
