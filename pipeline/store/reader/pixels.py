"""What looks wrong with the pixels that a loader gives, by the thumbnail that a store has of each view."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.views.pyramid import Size
from pipeline.views.types import THUMBNAIL_CELLS as CELLS
from pipeline.views.types import Pixels

TOLERANCE = 1.0  # gray levels between means of cells: another decoder or another resize differs by less
EXPLAINED = 0.2  # what a fault may leave of it, over how much the thumbnail's cells differ among themselves
FAULT_PRICE = 0.03  # in the same unit: one fault more must explain so much more
SCALES, SHIFTS = np.geomspace(0.5, 2, 13), np.linspace(-0.5, 0.5, 11)
"""Sizes over the teacher's, and shifts in sides of the view, from which the search for both begins."""
MIN_CELLS = 0.4  # the share of the cells that must lie in the loader's image

Cells = NDArray[np.float64]  # (CELLS, CELLS, 3)
Guess = tuple[tuple[str, ...], float]  # faults, and what they leave of the difference, in gray levels


def diagnose(
    values: NDArray[Any], size_hw: Size, seen: Pixels, mean: NDArray[Any], std: NDArray[Any]
) -> str | None:
    """What looks wrong with ``values`` ``(H, W, 3)`` RGB, as a network would get them; None if nothing does.

    The view of ``size_hw`` px is in their upper left corner, ``seen`` its thumbnail ``(CELLS, CELLS, 3)``.
    Gray level = ``values * std + mean``, each ``(3,)``.
    """
    known = seen.astype(np.float64)
    # (H + 1, W + 1, 3): over all above and left.
    sums = np.pad(values.astype(np.float64), ((1, 0), (1, 0), (0, 0))).cumsum(0).cumsum(1)
    cells = _cells(sums, size_hw, np.array([1.0, 1, 0, 0]))
    difference = _distance(cells * std + mean, known)
    if difference <= TOLERANCE:
        return None
    spread = max(np.abs(known - known.mean((0, 1))).mean(), TOLERANCE)
    limit = min(difference / 2, TOLERANCE + EXPLAINED * spread)
    guesses = [*_simple(cells, known, mean, std), *_moved(sums, size_hw, known, mean, std)]
    plausible = [(rest / spread + FAULT_PRICE * len(words), words) for words, rest in guesses if rest < limit]
    other = f"like another image, or a part of it (cells differ by {difference:.0f} gray levels)"
    return " and ".join(min(plausible)[1]) if plausible else other


def _simple(cells: Cells, known: Cells, mean: NDArray[Any], std: NDArray[Any]) -> Iterator[Guess]:
    """Faults that move no pixel but to its mirror image, alone and together."""
    line = "not normalized as expected (gray level = {} * value + {}, expected {} and {})"
    for placed, words in ((cells, ()), (cells[:, ::-1], ("mirrored",))):
        swapped = (*words, "red and blue swapped")
        # As a file's channels are mostly swapped: before they are normalized.
        yield swapped, _distance((placed * std + mean)[..., ::-1], known)
        for values, faults in ((placed, words), (placed[..., ::-1], swapped)):
            yield faults, _distance(values * std + mean, known)
            # The line that best makes one of the other; it does not turn dark to bright.
            x, y = values - values.mean((0, 1)), known - known.mean((0, 1))
            slope = np.maximum((x * y).sum((0, 1)), 0) / np.maximum((x * x).sum((0, 1)), 1e-9)
            offset = known.mean((0, 1)) - slope * values.mean((0, 1))
            shown = (np.round(numbers, 1).tolist() for numbers in (slope, offset, std, mean))
            yield (*faults, line.format(*shown)), _distance(values * slope + offset, known)


def _moved(
    sums: NDArray[np.float64], size_hw: Size, known: Cells, mean: NDArray[Any], std: NDArray[Any]
) -> Iterator[Guess]:
    """The best shift, and the best scale and shift: from a grid of them, then in ever smaller steps."""

    def rest_at(place: NDArray[np.float64]) -> float:
        if place[:2].min() < SCALES[0] / 2:
            return np.inf
        return _distance(_cells(sums, size_hw, place) * std + mean, known)

    for scales, ways in ((np.ones(1), np.eye(4)[2:]), (SCALES, np.eye(4))):
        best = min((np.array([s, s, x, y]) for s in scales for x in SHIFTS for y in SHIFTS), key=rest_at)
        rest, step = rest_at(best), 0.05
        while step > 2e-4:
            nearest = min((best + step * way for way in (*ways, *-ways)), key=rest_at)
            if rest_at(nearest) < rest:
                best, rest = nearest, rest_at(nearest)
            else:
                step /= 2
        scale_x, scale_y, x, y = best.tolist()
        shifted = f"shifted by ({x * size_hw[1]:.1f}, {y * size_hw[0]:.1f}) px"
        yield (shifted,) if len(scales) == 1 else (f"scaled by ({scale_x:.2f}, {scale_y:.2f})", shifted), rest


def _cells(sums: NDArray[np.float64], size_hw: Size, place: NDArray[np.float64]) -> Cells:
    """Means of the cells of a view, scaled by ``place[:2]``, shifted by sides ``place[2:]``; NaN outside."""
    rows, columns = (
        np.arange(CELLS + 1) * side // CELLS * scale + shift * side
        for side, scale, shift in zip(size_hw, place[1::-1], place[:1:-1], strict=True)
    )
    total = np.diff(np.diff(_between(_between(sums, rows, 0), columns, 1), axis=0), axis=1)
    return np.asarray(total / np.outer(np.diff(rows), np.diff(columns))[..., None])


def _between(sums: NDArray[np.float64], places: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Sums at places between whole pixels of an axis; NaN outside."""
    last, shape = sums.shape[axis] - 1, [-1 if i == axis else 1 for i in range(3)]
    lower = np.clip(np.floor(places + 1e-9).astype(int), 0, last - 1)
    weight = (places - lower).reshape(shape)
    mixed = sums.take(lower, axis) * (1 - weight) + sums.take(lower + 1, axis) * weight
    outside = (places < -1e-6) | (places > last + 1e-6)
    return np.where(outside.reshape(shape), np.nan, mixed)


def _distance(cells: Cells, known: Cells) -> float:
    """Mean difference over the cells that are not NaN."""
    inside = np.isfinite(cells).all(-1)
    return float(np.abs(cells - known)[inside].mean()) if inside.mean() >= MIN_CELLS else np.inf
