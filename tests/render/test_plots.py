"""Plots in files: what is drawn is what the report says, and everything can be read."""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plot_inputs import ESSAY, PIECES, by_hand, report
from scipy.special import softmax

from decodecli.errors import UsageError, WriteError
from decodecli.render.plots import distribution as plots
from decodecli.render.plots import figure_layout as plot_fonts
from decodecli.render.plots.distribution_view import KINDS, DistributionView
from decodecli.render.plots.in_terminal import draw_terminal

pytest.importorskip("matplotlib")
DRAWN = tuple(kind for kind in KINDS if kind != "auto")
SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    """A glyph that is missing, a layout that collapses: matplotlib only warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def made(kind: str, rows: int = 10, size: Any = None, **more: Any) -> Any:
    temperatures = (1.4,) if kind == "bars" else (0.4, 1.0, 1.6)
    shown, scores = report(rows, temperatures, **more)
    tokens = [row.token for row in shown.rows] if kind == "tokens" else ()
    return plots.figure(shown, kind, tokens, scores=scores, size=size)


def boxes(figure: Any) -> list[tuple[str, Any]]:
    """Every text that is to be seen, with its place in pixels."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        low, high = axes.get_window_extent().min - 2, axes.get_window_extent().max + 2
        for text in ticks:
            box = text.get_window_extent()
            middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
            beside = low[0] <= middle[0] <= high[0] or low[1] <= middle[1] <= high[1]
            if text.get_visible() and text.get_text() and beside and box.width > 0:
                found.append((text.get_text(), box))
        texts = [*axes.texts, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        texts += axes.get_legend().get_texts() if axes.get_legend() else []
        found += [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    for text in figure.texts + [t for legend in figure.legends for t in legend.get_texts()]:
        found.append((text.get_text(), text.get_window_extent()))
    return found


@pytest.mark.parametrize("size", [None, (6, 4), (10, 6)], ids=["fitted", "6x4", "10x6"])
@pytest.mark.parametrize("rows", [10, 40])
@pytest.mark.parametrize("kind", DRAWN)
def test_no_text_covers_another_or_leaves_the_picture(kind: str, rows: int, size: Any) -> None:
    figure = made(kind, rows, size, top_p=0.9, target=3)
    frame = figure.bbox
    texts = boxes(figure)
    assert len(texts) > 5
    for text, box in texts:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= frame.x1 + 1, text
        assert box.y1 <= frame.y1 + 1, text
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        assert not a.overlaps(b), (one, other)


@pytest.mark.parametrize("kind", ["bars", "panel"])
def test_every_token_has_its_label_at_a_legible_size(kind: str) -> None:
    figure = made(kind, 40, (6, 4))
    labels = [label for label in figure.axes[0].get_yticklabels() if label.get_text()]
    assert len(labels) == 40
    assert all(label.get_fontsize() >= 5 for label in labels)


def test_bars_are_as_long_as_the_report_says() -> None:
    axes = plots.figure(by_hand(ESSAY)).axes[0]
    lengths = [bar.get_width() for bar in axes.containers[0]]
    wanted = [0.512106, 0.310608, 0.069306, 0.051343, 0.031141, 0.025496]
    assert lengths == pytest.approx(wanted, abs=5e-7)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["day", "night", "sun", "home", "space", "furniture"]
    assert [text.get_text() for text in axes.texts][:2] == ["51.2%", "31.1%"]


def test_a_panel_has_a_plot_a_temperature_on_one_scale() -> None:
    shown = by_hand(ESSAY, (0.4, 1.0, 1.6))
    axes = plots.figure(shown).axes
    assert [one.get_title(loc="left") for one in axes] == ["T = 0.4", "T = 1", "T = 1.6"]
    assert len({one.get_xlim() for one in axes}) == 1
    assert len({one.get_ylim() for one in axes}) == 1
    for index, one in enumerate(axes):
        lengths = [bar.get_width() for bar in one.containers[0]]
        assert lengths == [row.probability[index] for row in shown.rows]


@pytest.mark.parametrize("count", [2, 5, 7])
def test_a_panel_wraps_and_every_column_has_its_scale(count: int) -> None:
    figure = plots.figure(by_hand(ESSAY, tuple(0.5 + k / 4 for k in range(count))))
    assert len(figure.axes) == count
    figure.draw_without_rendering()
    columns = {round(axes.get_position().x0, 3) for axes in figure.axes}
    named = [
        round(axes.get_position().x0, 3)
        for axes in figure.axes
        if any(
            tick.label1.get_visible() and tick.label1.get_text() for tick in axes.xaxis.majorTicks
        )
    ]
    assert sorted(named) == sorted(columns)


def test_filters_show_what_they_removed_and_what_is_left() -> None:
    shown, scores = report(10, (0.4,), top_p=0.9, target=3)
    figure = plots.figure(shown, scores=scores)
    drawn = {(c[0].get_hatch(), tuple(c[0].get_facecolor())): c for c in figure.axes[0].containers}
    assert len(drawn) == len(figure.axes[0].containers)
    hatched = sum(len(bars) for (hatch, _), bars in drawn.items() if hatch)
    assert hatched == sum(row.removed_by[0] is not None for row in shown.rows)
    frames = next(bars for (_, colour), bars in drawn.items() if colour[3] == 0)
    finals = [row.final[0] for row in shown.rows if row.final[0] is not None]
    assert [bar.get_width() for bar in frames] == finals
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "removed by a filter" in legend
    assert "final: after the filters" in legend


def test_the_target_is_marked_in_words_too() -> None:
    shown, scores = report(10, (1.0,), target=2)
    labels = [t.get_text() for t in plots.figure(shown, scores=scores).axes[0].get_yticklabels()]
    assert [label for label in labels if label.startswith("▸ ")] == ["▸ ␣the"]


def test_a_target_beyond_the_rows_is_drawn() -> None:
    shown, _ = report(10, (1.0,), target=2000)
    assert DistributionView(shown, "bars").labels[-1] == "w2000"


def test_lines_pass_through_the_report() -> None:
    shown, _ = report(12)
    axes = plots.figure(shown, "lines").axes[0]
    curves = [line for line in axes.lines if len(line.get_xdata()) == 12]
    for index, line in enumerate(curves):
        assert list(line.get_ydata()) == [row.probability[index] for row in shown.rows]
    assert len(curves) == 3


@pytest.mark.parametrize("with_scores", [True, False])
def test_token_curves_are_exact_over_the_full_vocabulary(with_scores: bool) -> None:
    shown, scores = report(10)
    chosen = ["▁Tokyo", "␣the", "日本"]
    figure = plots.figure(shown, "tokens", chosen, scores=scores if with_scores else None)
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[:2] == ["␣Tokyo", "␣the"]
    assert names[2] in ("日本", "<U+65E5 672C>")  # code points where no font has the characters
    curves = [line for line in axes.lines if line.get_marker() == "None"]
    for token_id, line in zip((0, 2, 4), curves, strict=True):
        temperatures = np.asarray(line.get_xdata())
        wanted = [softmax(scores / t)[token_id] for t in temperatures]
        assert np.asarray(line.get_ydata()) == pytest.approx(np.array(wanted), rel=1e-9)
        assert len(temperatures) > 100 if with_scores else len(temperatures) == 3


def test_all_rows_together_need_no_scores() -> None:
    shown = by_hand(ESSAY, (0.5, 2.0))
    line = plots.figure(shown, "tokens").axes[0].lines[0]
    assert len(line.get_xdata()) > 100


def test_the_top_p_cut_stands_where_the_nucleus_ends() -> None:
    shown, scores = report(10, top_p=0.9)
    figure = plots.figure(shown, "cumulative", scores=scores)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    kept = [f"{spread.kept:,}" for spread in shown.spreads]
    for name, number in zip(legend, kept, strict=False):
        assert name.split(": ")[1].split()[0] == number
    assert legend[-1] == "top_p 0.9"


def test_cumulative_probability_without_scores_ends_with_the_rows() -> None:
    shown, _ = report(10, target=2000)  # a row from further down is no part of the sum
    ranks, mass = DistributionView(shown, "cumulative").over_rank(1)
    assert len(ranks) == 10
    assert mass[-1] == pytest.approx(sum(row.probability[1] for row in shown.rows[:10]))


def test_entropy_runs_between_its_limits() -> None:
    shown, scores = report(10)
    axes = plots.figure(shown, "entropy", scores=scores).axes[0]
    words = [text.get_text() for text in axes.texts]
    assert "T → 0: 0.00 nats" in words
    assert f"T → ∞: log 4,096 = {math.log(4096):.2f} nats" in words
    marks = next(line for line in axes.lines if line.get_marker() == "o")
    assert list(marks.get_ydata()) == [spread.entropy for spread in shown.spreads]
    assert axes.get_ylabel() == "entropy (nats)"


def test_a_character_without_a_glyph_is_spelt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot_fonts, "_candidates", lambda _: ())
    fonts = plot_fonts.fonts_for(["日", "กรุงเทพ", "Москва", "␣"])
    assert fonts.families == (plot_fonts.BASE_FONT,)
    assert fonts.spell("日") == "<U+65E5>"
    assert fonts.spell("กรุงเทพ") == "<U+0E01 0E23 0E38 …>"
    assert fonts.spell("Москва␣") == "Москва␣"


def test_an_installed_font_that_has_the_glyphs_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    has = {plot_fonts.BASE_FONT: "ab", "Some Han": "日本", "Some Thai": "ก", "Unneeded": "日"}
    monkeypatch.setattr(plot_fonts, "_candidates", lambda _: tuple(has)[1:])
    monkeypatch.setattr(plot_fonts, "_glyphs", lambda name: {ord(c) for c in has[name]})
    fonts = plot_fonts.fonts_for(["a日", "本", "ก", "ع"])
    assert fonts.families == (plot_fonts.BASE_FONT, "Some Han", "Some Thai")
    assert fonts.missing == {"ع"}


def test_every_label_has_its_glyphs() -> None:
    """Against the fonts that are installed here, whatever they are."""
    fonts = plot_fonts.fonts_for(PIECES)
    have = set().union(*(plot_fonts._glyphs(name) for name in fonts.families))
    for piece in PIECES:
        assert all(ord(c) in have for c in fonts.spell(piece) if c not in "\n\t"), piece


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, ".svg") for kind in DRAWN), ("bars", ".png"), ("lines", ".pdf")],
)
def test_the_same_input_gives_the_same_bytes(kind: str, suffix: str, tmp_path: Path) -> None:
    shown, scores = report(10, (1.0,) if kind == "bars" else (0.4, 1.0), top_p=0.9, target=1)
    paths = [tmp_path / f"{k}{suffix}" for k in "ab"]
    for path in paths:
        plots.draw(shown, str(path), kind, scores=scores)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(SIGNATURES[suffix])


def test_settings_of_the_notebook_are_left_alone(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 23, "text.usetex": False, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        plots.draw(by_hand(ESSAY), str(tmp_path / "a.svg"))
        assert dict(matplotlib.rcParams) == before
    plots.draw(by_hand(ESSAY), str(tmp_path / "b.svg"))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("temperatures", [(0.0,), (0.0, 1e-10, 1.0, 1e10), (1e10,), (1.0, 1.0)])
@pytest.mark.parametrize(
    "scores",
    [[40.0, 4, 2, 35, 25, 15], [1.0], [0.0] * 5, [3.0, -math.inf, -math.inf]],
    ids=["steep", "one", "ties", "impossible"],
)
def test_extremes_are_drawn(temperatures: Any, scores: Any) -> None:
    shown = by_hand({f"t{k}": score for k, score in enumerate(scores)}, temperatures)
    for kind in KINDS:
        if kind == "bars" and len(temperatures) > 1:
            continue
        assert plots.figure(shown, kind).axes
        draw_terminal(shown, 80, kind)


def test_the_highest_sixty_of_very_many_are_drawn() -> None:
    shown = by_hand({f"t{k}": float(k % 977) for k in range(5000)})
    figure = plots.figure(shown)
    assert len(figure.axes[0].get_yticklabels()) == 60
    assert any("on 4,940 more" in text.get_text() for text in figure.axes[0].texts)


def test_a_file_name_must_say_which_format(tmp_path: Path) -> None:
    for name in ("plot.jpg", "plot", ".svg"):
        with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
            plots.draw(by_hand(ESSAY), str(tmp_path / name))
    plots.draw(by_hand(ESSAY), str(tmp_path / "PLOT.PNG"))


def test_what_cannot_be_written_says_so(tmp_path: Path) -> None:
    for name in ("none/plot.png", "folder.png"):
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(WriteError, match="cannot write"):
            plots.draw(by_hand(ESSAY), str(tmp_path / name))


def test_wrong_wishes_are_one_clear_line() -> None:
    shown = by_hand(ESSAY, (1.0, 2.0))
    with pytest.raises(UsageError, match="pie is not known"):
        plots.figure(shown, "pie")
    with pytest.raises(UsageError, match="one temperature, and there are 2"):
        plots.figure(shown, "bars")
    with pytest.raises(UsageError, match="'dusk' is not among the 6 listed tokens"):
        plots.figure(shown, "tokens", ["dusk"])


def test_without_matplotlib_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError) as raised:
        plots.draw(by_hand(ESSAY), str(tmp_path / "a.png"))
    assert "--plot FILE needs matplotlib" in raised.value.message
    assert "pip install 'decodecli[plots]'" in raised.value.hint
    assert draw_terminal(by_hand(ESSAY), 60)


def test_a_long_prompt_is_shortened_to_its_end() -> None:
    shown, _ = report(10)
    title = plots.figure(shown, size=(6, 4)).texts[0].get_text()
    assert title.startswith("Next token after “…")
    assert title.endswith("The capital of Japan is”")
