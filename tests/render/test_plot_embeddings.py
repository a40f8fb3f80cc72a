"""Pictures of embeddings: nothing covers anything, everything is what the report says."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from embed_inputs import report, words

from decodecli.errors import UsageError, WriteError
from decodecli.render.plots.embeddings import KINDS, draw, figure

pytest.importorskip("matplotlib")
from matplotlib.text import Text


@pytest.fixture(autouse=True)
def _no_warnings():
    """A glyph that is missing, a layout that collapses: matplotlib only warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def extents(texts):
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]


@pytest.mark.parametrize("size", [None, (5, 4.5)], ids=["fitted", "small"])
@pytest.mark.parametrize("count", [2, 12, 20, 50, 150])
def test_no_name_in_the_scatter_covers_another_or_leaves_the_axes(count, size):
    made = figure(report(words(count), 4 if count > 4 else 0), "scatter", size=size)
    made.draw_without_rendering()
    (axes,) = made.axes
    # An annotation's own extent has its line to the point in it.
    names = [(t.get_text(), Text.get_window_extent(t)) for t in axes.texts]
    if size is None and count < 100:
        assert len(names) == count
    frame = axes.get_window_extent()
    for (one, a), (other, b) in itertools.combinations(names, 2):
        box = [type(x)([[x.x0 + 1, x.y0 + 1], [x.x1 - 1, x.y1 - 1]]) for x in (a, b)]
        assert not box[0].overlaps(box[1]), (one, other)
    outer = [axes.xaxis.label, axes.yaxis.label, axes._left_title, *made.texts]
    outer += [text for legend in made.legends for text in legend.get_texts()]
    for (one, a), (other, b) in itertools.combinations(extents(outer), 2):
        assert not a.overlaps(b), (one, other)
    for text, box in [*names, *extents(outer)]:
        assert box.x0 >= -1, text
        assert box.x1 <= made.bbox.x1 + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= made.bbox.y1 + 1, text
    for text, box in names:
        assert box.x0 >= frame.x0 - 8, text
        assert box.x1 <= frame.x1 + 8, text


@pytest.mark.parametrize("size", [None, (5, 4)], ids=["fitted", "small"])
@pytest.mark.parametrize("count", [2, 12, 40, 120])
def test_the_heat_map_holds_the_cosines_and_a_label_for_each(count, size):
    shown = report(words(count), 3 if count > 3 else 0)
    made = figure(shown, "heatmap", size=size)
    axes = made.axes[0]
    values = np.ma.filled(axes.images[0].get_array(), np.nan)
    wanted = np.array(shown.cosine, dtype=float)
    np.fill_diagonal(wanted, np.nan)
    np.testing.assert_allclose(values, wanted)
    made.draw_without_rendering()
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert len(labels) == count
        for (one, a), (other, b) in itertools.combinations(extents(labels), 2):
            assert not a.overlaps(b), (one, other)
        assert all(label.get_fontsize() >= 5 for label in labels)


def test_the_axes_name_the_variance_they_keep_and_share_one_scale():
    shown = report(words(20), 4)
    assert shown.plane is not None
    (axes,) = figure(shown, "scatter").axes
    first, second = shown.plane.ratio
    assert axes.get_xlabel() == f"PC1, {100 * first:.1f}% of the variance"
    assert axes.get_ylabel() == f"PC2, {100 * second:.1f}% of the variance"
    assert f"{100 * shown.plane.kept:.1f}%" in axes._left_title.get_text()
    assert axes.get_aspect() == 1
    points = np.concatenate([group.get_offsets() for group in axes.collections])
    np.testing.assert_allclose(points, shown.plane.coordinates)


def test_each_group_has_a_colour_and_an_entry_in_the_legend():
    made = figure(report(words(20), 4), "scatter")
    (axes,) = made.axes
    colours = {tuple(group.get_facecolor()[0]) for group in axes.collections}
    assert len(colours) == 4
    (legend,) = made.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"group {k}" for k in range(4)]
    assert not figure(report(words(20)), "scatter").legends


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_report_gives_the_same_bytes(kind, suffix, tmp_path):
    shown = report(words(8), 2)
    files = [tmp_path / f"{k}{suffix}" for k in range(2)]
    for path in files:
        draw(shown, str(path), kind)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(files[0].read_bytes()) > 2000


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.png"):
        draw(report(words(3)), str(tmp_path / "x.bmp"))
    with pytest.raises(UsageError, match="plot-kind"):
        draw(report(words(3)), str(tmp_path / "x.png"), "pie")
    with pytest.raises(UsageError, match="two words"):
        draw(report(words(1)), str(tmp_path / "x.png"))
    with pytest.raises(WriteError):
        draw(report(words(3)), str(tmp_path / "none" / "x.png"))
