"""Names of curves where they end, so that nobody has to look them up in a legend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KIND = "line-end"
_POINTS, _PITCH, _AWAY = 8.0, 9.6, 11.0  # of type; from one name to the next; from the point
_DARKER = 0.7  # of a colour's light: thin strokes need more contrast than a line


def label_end(axes: Axes, x: float, y: float, name: str, colour: str) -> None:
    """Write a curve's name to the right of its last point; the layout makes room for it."""
    from matplotlib.colors import to_rgb

    axes.annotate(
        name,
        (x, y),
        (_AWAY, 0),
        textcoords="offset points",
        va="center",
        fontsize=_POINTS,
        color=[_DARKER * part for part in to_rgb(colour)],
        annotation_clip=False,
        gid=_KIND,
    )


def spread_labels(axes: Axes) -> None:
    """Move the names apart that would cover one another, once the axes have their size."""
    from matplotlib.text import Annotation

    figure = axes.get_figure(root=True)
    labels = [t for t in axes.texts if isinstance(t, Annotation) and t.get_gid() == _KIND]
    if figure is None or not labels:
        return
    points = 72 / figure.dpi
    box = axes.get_window_extent()
    anchors = {id(label): float(axes.transData.transform(label.xy)[1]) * points for label in labels}
    labels.sort(key=lambda label: anchors[id(label)])
    places: list[float] = []
    lowest = box.y0 * points
    for label in labels:
        places.append(max(anchors[id(label)], lowest))
        lowest = places[-1] + _PITCH
    highest = box.y1 * points
    for k in reversed(range(len(places))):  # down again where they were pushed too high
        places[k] = min(places[k], highest)
        highest = places[k] - _PITCH
    for label, place in zip(labels, places, strict=True):
        label.set_position((_AWAY, place - anchors[id(label)]))
