"""Names written beside what they name: at the ends of curves, and around points.

Our own rather than adjustText 1.4, which was measured on pictures of `embed`: of 50 names it left one
pair over one another and of 150 names thirty, and 24 points covered, in 1.9 and 2.5 seconds; here there
are none, in 0.8 and 2.3 seconds. It also brings pyplot and scipy along.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_END = "line-end"
_POINTS, _PITCH, _ASIDE = 8.0, 9.6, 11.0  # of type; from one name to the next; from a line's end
_DARKER = 0.7  # of a colour's light: thin strokes need more contrast than a line
_MARK = 3.2  # points from a point's middle that its mark covers
# Points from a point to its name, at 45° beyond its mark, and from one ring to the next.
_GAP, _RING = 4.7, 7.0

Offset = tuple[float, float]  # of a name's lower left corner from its point, in points


def label_end(axes: Axes, x: float, y: float, name: str, colour: str) -> None:
    """Write a curve's name to the right of its last point; the layout makes room for it."""
    from matplotlib.colors import to_rgb

    axes.annotate(
        name,
        (x, y),
        (_ASIDE, 0),
        textcoords="offset points",
        va="center",
        fontsize=_POINTS,
        color=[_DARKER * part for part in to_rgb(colour)],
        annotation_clip=False,
        gid=_END,
    )


def spread_labels(axes: Axes) -> None:
    """Move the names of `label_end` apart that would cover one another, once the axes have their size."""
    labels: list[Any] = [text for text in axes.texts if text.get_gid() == _END]
    points = 72 / axes.figure.dpi
    box = axes.get_window_extent()
    anchors = {id(label): axes.transData.transform(label.xy)[1] * points for label in labels}
    labels.sort(key=lambda label: anchors[id(label)])
    heights: list[float] = []
    lowest = box.y0 * points
    for label in labels:
        heights.append(max(anchors[id(label)], lowest))
        lowest = heights[-1] + _PITCH
    highest = box.y1 * points
    for k in reversed(range(len(heights))):  # down again where they were pushed too high
        heights[k] = min(heights[k], highest)
        highest = heights[k] - _PITCH
    for label, height in zip(labels, heights, strict=True):
        label.set_position((_ASIDE, height - anchors[id(label)]))


def label_points(
    axes: Axes,
    points: Sequence[Sequence[float]],
    names: Sequence[str],
    colours: Sequence[str],
    sizes: Sequence[float] = (_POINTS,),
    *,
    rings: int = 8,
    corner: float = 0.0,
) -> int:
    """Write each name beside its point, once the axes have their size: inside the axes, over no point, no
    other text of the axes and no other name, and over as few lines as can be.

    Args:
        points: (names, 2) in data coordinates.
        sizes: of type; the first one at which all names find room is taken, else the last.
        rings: how many circles of positions are tried, the nearest first. From beyond the first a thin
            line leads back to the point.
        corner: points of the lower right corner that stay free.

    Returns: how many names find no room and are left out.
    """
    if not points:
        return 0
    for size in sizes:
        offsets = _offsets(axes, points, names, size, rings, corner)
        if None not in offsets:
            break
    leader = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 2.5}
    for (x, y), name, colour, placed in zip(points, names, colours, offsets, strict=True):
        if placed is not None:
            ring, offset = placed
            axes.annotate(
                name,
                (x, y),
                offset,
                textcoords="offset points",
                fontsize=size,
                color=colour,
                ha="left",
                va="bottom",
                in_layout=False,
                zorder=4,
                arrowprops={"color": colour, **leader} if ring else None,
            )
    return offsets.count(None)


def _offsets(
    axes: Axes,
    points: Sequence[Sequence[float]],
    names: Sequence[str],
    size: float,
    rings: int,
    corner: float,
) -> list[tuple[int, Offset] | None]:
    """Ring and offset of each name; None for one that finds no room."""
    from matplotlib.transforms import Bbox

    scale = axes.figure.dpi / 72  # pixels a point
    centres = np.asarray(axes.transData.transform(np.asarray(points)))
    frame = axes.get_window_extent()
    # Boxes as (left, below, right, above) in pixels.
    taken = [np.hstack([centres - _MARK * scale, centres + _MARK * scale])]
    taken += [np.array([text.get_window_extent().extents]) for text in axes.texts]
    if corner:
        taken.append(
            np.array([[frame.x1 - corner * scale, frame.y0, frame.x1, frame.y0 + 11 * scale]])
        )
    boxes = np.vstack(taken)
    lines = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    placed: list[tuple[int, Offset] | None] = []
    for name, (x, y) in zip(names, centres, strict=True):
        probe = axes.figure.text(0, 0, name, fontsize=size, va="bottom")
        extent = probe.get_window_extent()
        probe.remove()
        width, height = extent.width + 2, extent.height + 1  # with a little air
        best: tuple[int, int, Offset, Any] | None = None
        for ring, dx, dy in _positions(width / scale, height / scale, rings):
            if best is not None and (ring > best[0] or not best[1]):
                break
            left, below = x + dx * scale, y + dy * scale
            box = np.array([left, below, left + width, below + height])
            if (box[:2] < frame.min).any() or (box[2:] > frame.max).any():
                continue
            if ((boxes[:, :2] < box[2:]) & (boxes[:, 2:] > box[:2])).all(axis=1).any():
                continue
            bounds = Bbox.from_extents(*box)
            crossed = sum(path.intersects_bbox(bounds, filled=False) for path in lines)
            if best is None or crossed < best[1]:
                best = (ring, crossed, (dx, dy), box)
        if best is not None:
            boxes = np.vstack([boxes, best[3]])
        placed.append(None if best is None else (best[0], best[2]))
    return placed


def _positions(width: float, height: float, rings: int) -> Iterator[tuple[int, float, float]]:
    """Rings around a point and offsets on them for a name of this size, the nearest first."""
    for ring in range(rings):
        gap = _GAP + _RING * ring
        for angle in range(45, 405, 45 if ring == 0 else 15):  # above to the right first
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The box touches the ring with the side or corner that faces the point.
            right, above = (max(-1.0, min(1.0, math.sqrt(2) * part)) for part in (across, up))
            yield ring, across * gap + (right - 1) * width / 2, up * gap + (above - 1) * height / 2
