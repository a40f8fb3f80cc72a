"""Names written beside what they name: at the ends of curves, and around points.

Our own rather than adjustText 1.4, which was measured on pictures of `embed`: of 50 names it left one
pair over one another and of 150 names thirty, and 24 points covered, in 1.9 and 2.5 seconds; here there
are none, in 0.8 and 2.3 seconds. It also brings pyplot and scipy along.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def note(axes: Axes, text: str, at: Any, offset: Any, points: float, ink: Any, **more: Any) -> None:
    """Write `text` so many points beside a place."""
    axes.annotate(text, at, offset, textcoords="offset points", fontsize=points, color=ink, **more)


def label_end(axes: Axes, x: float, y: float, name: str, colour: str) -> None:
    """Write a curve's name to the right of its last point; the layout makes room for it."""
    from matplotlib.colors import to_rgb

    ink = [_DARKER * part for part in to_rgb(colour)]
    more = {"va": "center", "annotation_clip": False, "gid": _END}
    note(axes, name, (x, y), (_ASIDE, 0), _POINTS, ink, **more)


def spread_labels(axes: Axes) -> None:
    """Move the names of `label_end` apart that would cover one another, once the axes have their size."""
    labels: list[Any] = [text for text in axes.texts if text.get_gid() == _END]
    labels.sort(key=lambda label: axes.transData.transform(label.xy)[1])
    points = 72 / axes.figure.dpi
    box = axes.get_window_extent()
    anchors = np.array([axes.transData.transform(label.xy)[1] for label in labels]) * points
    pitches = _PITCH * np.arange(len(labels))
    # Up from the bottom, each a pitch above the one before; down again where they were pushed too high.
    heights = np.maximum.accumulate(np.maximum(anchors, box.y0 * points) - pitches) + pitches
    below_top = np.minimum(heights, box.y1 * points) - pitches
    heights = np.minimum.accumulate(below_top[::-1])[::-1] + pitches
    for label, height in zip(labels, heights - anchors, strict=True):
        label.set_position((_ASIDE, height))


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
    below = {"ha": "left", "va": "bottom", "in_layout": False, "zorder": 4}
    leader = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 2.5}
    for point, name, ink, placed in zip(points, names, colours, offsets, strict=True):
        if placed is not None:
            ring, offset = placed
            arrow = {"color": ink, **leader} if ring else None
            note(axes, name, tuple(point), offset, size, ink, arrowprops=arrow, **below)
    return offsets.count(None)


def _offsets(
    axes: Axes,
    points: Sequence[Sequence[float]],
    names: Sequence[str],
    size: float,
    rings: int,
    corner: float,
) -> list[tuple[int, tuple[float, float]] | None]:
    """Of each name its ring and how many points its lower left corner stands from its point; None for one
    that finds no room."""
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
    placed: list[tuple[int, tuple[float, float]] | None] = [None] * len(names)
    for number, (name, centre) in enumerate(zip(names, centres, strict=True)):
        probe = axes.figure.text(0, 0, name, fontsize=size, va="bottom")
        extent = probe.get_window_extent()
        probe.remove()
        name_size = np.array([extent.width + 2, extent.height + 1])  # with a little air
        for ring in range(rings):
            offsets = _ring_offsets(name_size / scale, ring)
            corners = centre + offsets * scale
            tries = np.hstack([corners, corners + name_size])
            inside = ((tries[:, :2] >= frame.min) & (tries[:, 2:] <= frame.max)).all(axis=1)
            lower, upper = tries[:, None, :2], tries[:, None, 2:]
            covers = np.all((boxes[:, :2] < upper) & (boxes[:, 2:] > lower), axis=2).any(axis=1)
            crossed = {}  # lines under each name that fits
            for k in np.flatnonzero(inside & ~covers):
                bounds = Bbox.from_extents(*tries[k])
                crossed[k] = sum(path.intersects_bbox(bounds, filled=False) for path in lines)
            if crossed:
                best = min(crossed, key=crossed.__getitem__)
                boxes = np.vstack([boxes, tries[best]])
                placed[number] = ring, tuple(offsets[best])
                break
    return placed


def _ring_offsets(name_size: Any, ring: int) -> Any:
    """(positions, 2): where on a ring around a point the lower left corner of a name of this size may
    stand, above to the right first."""
    gap = _GAP + _RING * ring
    degrees = np.arange(45, 405, 45 if ring == 0 else 15)
    directions = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)
    # The box touches the ring with the side or corner that faces the point.
    sides = np.clip(math.sqrt(2) * directions, -1.0, 1.0)
    return directions * gap + (sides - 1) * name_size / 2
