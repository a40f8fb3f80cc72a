"""Pictures of a sweep: every number and interval where the summary has it, and all of it legible."""

from __future__ import annotations

import functools
import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
from sweep_inputs import HOSTILE, summary

from decodecli.errors import UsageError, WriteError
from decodecli.records.metrics import METRICS
from decodecli.records.sweep import Estimate
from decodecli.render.plots.figure_file import style
from decodecli.render.plots.labels import label_points
from decodecli.render.plots.sweep import draw_metric, draw_sweep, page_figure, pages, pictures
from decodecli.render.plots.sweep_data import value_name
from decodecli.render.plots.sweep_maps import has_map, map_figure, map_metrics, plane_figure
from decodecli.render.plots.sweep_view import NAMED, SweepView
from docs.sweep_picture import draw_readme, readme_figure

pytest.importorskip("matplotlib")
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

TWO = {"temperature": (0.2, 0.7, 1.0, 1.4), "top_p": (0.2, 0.9)}
EXTREMES = {"temperature": (0.001, 0.01, 1.0, 1.8, 20.0)}
MANY = {
    "temperature": tuple(round(0.1 * k, 1) for k in range(15)),
    "top_p": tuple(round(0.1 * k, 1) for k in range(1, 11)),
}
WORDS = {"bos": (True, False), "stop": ((), ("\n",), ("$x$", *HOSTILE))}
THREE = TWO | {"bos": (True, False)}
SWEEPS = {
    "two": summary(TWO),
    "extremes": summary(EXTREMES),
    "zero": summary({"temperature": (0, 0.01, 0.1, 1.0, 10.0), "top_k": (0, 40)}),
    "many": summary(MANY),
    "words": summary(WORDS),
    "tasks": summary(THREE, tasks=("knowledge", "_story" * 9)),
}


@pytest.fixture(autouse=True)
def _no_warnings():
    """A glyph that is missing, a layout that collapses: matplotlib only warns."""
    with warnings.catch_warnings(), style():
        warnings.simplefilter("error")
        yield


@functools.cache
def curves_of(name):
    """As `curves`, of a sweep that several tests only look at."""
    return curves(SweepView(SWEEPS[name]))


def curves(shown):
    """The first page, and its axes by metric and task."""
    page = pages(shown)[0]
    figure = page_figure(shown, page)
    return figure, {
        (cell[0].name, cell[1][0]): axes
        for cell, axes in zip(page.places, figure.axes, strict=False)
    }


def data_lines(axes):
    """The lines with data; the legend's have none."""
    return [line for line in axes.lines if len(line.get_xdata())]


def texts(figure):
    """Every text that is to be seen, with its place in pixels."""
    figure.draw_without_rendering()
    found = [*figure.texts]
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        found += [axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            if axis.majorTicks and axis.get_tick_params().get("labelleft", True):
                low, high = sorted(axis.get_view_interval())
                ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=False)
                found += [
                    t for at, t in ticks if low - 1e-9 <= at <= high + 1e-9 and t.get_visible()
                ]
        if axes.get_legend():
            found += axes.get_legend().get_texts()
    return [(t.get_text(), t.get_window_extent()) for t in found if t.get_text()]


@pytest.mark.parametrize("name", SWEEPS)
def test_no_text_covers_another_or_leaves_the_picture(name):
    for picture, make in pictures(SWEEPS[name]):
        figure = make()
        for text, box in texts(figure):
            assert box.x0 >= -1, (picture, text)
            assert box.y0 >= -1, (picture, text)
            assert box.x1 <= figure.bbox.x1 + 1, (picture, text)
            assert box.y1 <= figure.bbox.y1 + 1, (picture, text)
        for (one, a), (other, b) in itertools.combinations(texts(figure), 2):
            assert not a.padded(-1).overlaps(b), (picture, one, other)


def test_every_number_is_on_its_line():
    sweep = SWEEPS["two"]
    _, axes = curves_of("two")
    assert len(axes) == len(METRICS)
    for (metric, _), one in axes.items():
        lines = data_lines(one)
        assert len(lines) == 2
        for top_p, line in zip((0.2, 0.9), lines, strict=True):
            wanted = [
                (s.setting["temperature"], s.numbers[metric].value)
                for s in sweep.settings
                if s.setting["top_p"] == top_p
            ]
            np.testing.assert_allclose(line.get_xydata(), wanted)


def test_every_interval_is_drawn_from_end_to_end():
    sweep = SWEEPS["two"]
    _, axes = curves_of("two")
    for (metric, _), one in axes.items():
        bars = [c for c in one.collections if isinstance(c, LineCollection)]
        ends = {tuple(segment[:, 1]) for bar in bars for segment in bar.get_segments()}
        wanted = {(s.numbers[metric].low, s.numbers[metric].high) for s in sweep.settings}
        assert {(round(a, 9), round(b, 9)) for a, b in ends} == {
            (round(a, 9), round(b, 9)) for a, b in wanted
        }


def test_a_long_line_has_its_intervals_as_a_band():
    sweep = summary({"temperature": MANY["temperature"]})
    _, axes = curves(SweepView(sweep))
    (band,) = axes["accuracy", None].collections
    assert isinstance(band, FillBetweenPolyCollection)
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(min(s.numbers["accuracy"].low for s in sweep.settings))
    assert heights.max() == pytest.approx(max(s.numbers["accuracy"].high for s in sweep.settings))


def test_a_number_without_an_interval_has_none_drawn():
    sweep = summary({"temperature": (0.2, 1.0)})
    for setting in sweep.settings:
        for name, found in list(setting.numbers.items()):
            setting.numbers[name] = type(found)(found.value, None, None, 1)
    _, axes = curves(SweepView(sweep))
    assert not any(one.collections for one in axes.values())


def test_values_that_grow_by_ratios_get_a_log_axis_with_zero_before_them():
    _, axes = curves_of("extremes")
    assert axes["accuracy", None].get_xscale() == "log"
    _, axes = curves_of("two")
    assert axes["accuracy", None].get_xscale() == "linear"
    _, axes = curves_of("zero")
    one = axes["accuracy", None]
    assert one.get_xscale() == "log"
    assert data_lines(one)[0].get_xdata()[0] == pytest.approx(0.001)
    names = {
        round(t, 6): n.get_text()
        for t, n in zip(one.get_xticks(), one.get_xticklabels(), strict=True)
    }
    assert names[0.001] == "0"


def test_greedy_stands_at_zero_on_a_linear_axis_and_is_named():
    figure, axes = curves(SweepView(summary({"temperature": (0.0, 0.7, 1.0)})))
    assert data_lines(axes["accuracy", None])[0].get_xdata()[0] == 0
    assert any("0 is greedy" in one.get_xlabel() for one in figure.axes)


def test_what_has_one_value_is_not_drawn():
    assert list(pictures(summary({}))) == []
    sweep = summary({"temperature": (0.2, 1.0)})
    for setting in sweep.settings:
        setting.numbers["accuracy"] = sweep.settings[0].numbers["accuracy"]
    metrics = [metric.name for metric, _ in pages(SweepView(sweep))[0].places]
    assert "accuracy" not in metrics
    assert "mean_logprob" in metrics


def test_tasks_and_a_third_axis_make_panels():
    shown = SweepView(SWEEPS["tasks"])
    found = pages(shown)
    assert [page.name for page in found] == ["metrics", "metrics-2"]
    assert {page.columns for page in found} == {4}
    figure = page_figure(shown, found[0])
    titles = [axes._left_title.get_text() for axes in figure.axes[:4]]
    assert titles[0] == "knowledge · bos on"
    assert all(title.startswith("_story") for title in titles[1::2])
    assert titles[2] == "knowledge · bos off"


def test_many_lines_are_told_by_a_scale_of_colours():
    assert len(MANY["top_p"]) > NAMED
    figure, axes = curves_of("many")
    one = axes["accuracy", None]
    assert len(data_lines(one)) == len(MANY["top_p"])
    assert len({line.get_color() for line in data_lines(one)}) == len(MANY["top_p"])
    assert one.get_legend() is None
    assert figure.axes[-1].get_ylabel() == "top_p"


def test_hundreds_of_lines_are_thinned_and_the_picture_says_so():
    sweep = summary({"temperature": (0.2, 1.0, 1.4), "top_k": tuple(range(300))})
    figure, axes = curves(SweepView(sweep))
    assert len(data_lines(axes["accuracy", None])) == 60
    assert "60 of 300 lines" in figure.texts[1].get_text()


def test_a_heat_map_holds_the_numbers_and_needs_three_values_each():
    assert not has_map(SweepView(SWEEPS["two"]))
    sweep = SWEEPS["many"]
    shown = SweepView(sweep)
    assert has_map(shown)
    metrics = map_metrics(shown, shown.panels[0])
    figure = map_figure(shown, shown.panels[0])
    for metric, axes in zip(metrics, figure.axes, strict=False):
        values = np.asarray(axes.images[0].get_array())
        for setting in sweep.settings:
            x = MANY["temperature"].index(setting.setting["temperature"])
            y = MANY["top_p"].index(setting.setting["top_p"])
            assert values[y, x] == pytest.approx(setting.numbers[metric.name].value)


def test_cells_of_a_zipped_or_unfinished_map_stay_grey():
    axes = {"temperature": (0.2, 1.0, 1.4), "top_p": (0.2, 0.9, 1.0)}
    whole = summary(axes)
    shown = SweepView(summary(axes, settings=whole.settings[:-1]))
    values = map_figure(shown, shown.panels[0]).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(values).sum() == 1


def test_the_plane_has_a_point_a_setting():
    sweep = SWEEPS["two"]
    figure = plane_figure(SweepView(sweep))
    logprob, accuracy = figure.axes[:2]
    for axes, metric in ((logprob, "mean_logprob"), (accuracy, "accuracy")):
        points = np.concatenate([line.get_xydata() for line in data_lines(axes)])
        wanted = [
            (1 - s.numbers["self_bleu_4"].value, s.numbers[metric].value) for s in sweep.settings
        ]
        np.testing.assert_allclose(sorted(map(tuple, points)), sorted(wanted))
        assert {text.get_text() for text in axes.texts} == {"0.2", "0.7", "1", "1.4"}


def test_without_seeds_to_compare_the_plane_takes_distinct_2():
    sweep = summary(TWO, without=("self_bleu_4",))
    axes = plane_figure(SweepView(sweep)).axes[-1]
    assert "distinct-2" in axes.get_xlabel()


@pytest.mark.parametrize("format", ["png", "svg"])
def test_the_same_summary_gives_the_same_files(format, tmp_path):
    first, second = (draw_sweep(SWEEPS["two"], tmp_path / name, format) for name in "ab")
    assert [path.name for path in first] == [f"metrics.{format}", f"quality-diversity.{format}"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert len(one.read_bytes()) > 2000


def test_files_of_several_heat_maps_have_names_of_their_own():
    axes = {"temperature": (0.2, 1.0, 1.4), "top_p": (0.2, 0.9, 1.0)}
    names = [name for name, _ in pictures(summary(axes, tasks=("../x", "a b", "日本", "../x/")))]
    maps = [name for name in names if name.startswith("heatmap")]
    assert len(set(maps)) == 4
    assert not any("/" in name or name.startswith(".") for name in names)


def test_the_readmes_picture_has_right_answers_and_distinctness(tmp_path):
    sweep = summary({"temperature": (0.2, 0.7, 1.0, 1.4)}, tasks=("knowledge", "story"))
    (axes,) = readme_figure(sweep).axes
    knowledge, distinct, unlike = data_lines(axes)
    assert list(knowledge.get_ydata()) == [
        s.numbers["accuracy"].value for s in sweep.settings if s.task == "knowledge"
    ]
    stories = [s.numbers for s in sweep.settings if s.task == "story"]
    assert list(distinct.get_ydata()) == [found["distinct_1"].value for found in stories]
    assert list(unlike.get_ydata()) == [1 - found["self_bleu_4"].value for found in stories]
    names = [text.get_text() for text in axes.texts]
    assert sorted(names) == [
        "knowledge: right answers",
        "story: 1 − self-BLEU-4",
        "story: distinct-1",
    ]
    draw_readme(sweep, tmp_path / "sweep.svg")
    assert (tmp_path / "sweep.svg").read_text().startswith("<?xml")
    with pytest.raises(UsageError):
        draw_readme(summary({}), tmp_path / "none.svg")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        draw_sweep(SWEEPS["two"], tmp_path / "file" / "plots")


def test_what_is_constant_stands_in_the_heading():
    constant = {"temperature": 1.0, "top_k": 40, "max_new_tokens": 20, "bos": None}
    sweep = summary({"top_p": (0.2, 0.9, 1.0)}, constant=constant, prompts=1, prompt="Once\nupon")
    for _, make in pictures(sweep):
        line = make().texts[2].get_text()
        assert line.startswith("T 1 · top_k 40 · up to 20 tokens · BOS auto · “Once↵upon”")


def test_every_value_of_a_few_has_its_number_under_the_axis():
    sweep = SWEEPS["extremes"]
    page = pages(SweepView(sweep))[0]
    axes = next(a for a in page_figure(SweepView(sweep), page).axes if a.get_xlabel())
    names = [tick.get_text().strip() for tick in axes.get_xticklabels()]
    assert names == ["0.001", "0.01", "1", "1.8", "20"]


def test_values_of_many_digits_are_shown_in_few():
    sweep = summary({"temperature": (0.1, 0.17782794100389, 0.31622776601684)})
    _, axes = curves(SweepView(sweep))
    texts = {tick.get_text() for one in axes.values() for tick in one.get_xticklabels()}
    assert {"0.1", "0.178", "0.316"} <= texts


def test_small_differences_look_small_in_a_heat_map():
    shown = SweepView(SWEEPS["many"])
    metrics = map_metrics(shown, shown.panels[0])
    figure = map_figure(shown, shown.panels[0])
    limits = {
        metric.name: axes.images[0].get_clim()
        for metric, axes in zip(metrics, figure.axes, strict=False)
    }
    for name in ("distinct_2", "self_bleu_4", "identical", "accuracy"):
        assert limits[name] == (0, 1)
    assert limits["mean_logprob"][1] == limits["mean_entropy"][0] == 0
    names = {tick.get_text() for axes in figure.axes for tick in axes.get_yticklabels()}
    assert {"0%", "100%"} <= names  # of a scale of colours
    assert "temperature" in {axes.get_xlabel() for axes in figure.axes}


def test_a_number_that_a_task_lacks_has_no_panel():
    sweep = summary({"temperature": (0.2, 0.7, 1.0)}, tasks=("knowledge", "story"))
    figure = plane_figure(SweepView(sweep))
    assert [axes.get_visible() for axes in figure.axes] == [True, True, True, False]
    _, axes = curves(SweepView(sweep))
    assert axes["accuracy", "knowledge"].get_visible()
    assert not axes["accuracy", "story"].get_visible()


def test_intervals_of_two_observations_do_not_span_the_plane():
    sweep = summary(TWO)
    for setting in sweep.settings:
        setting.numbers["self_bleu_4"] = Estimate(0.5, 0.0, 1.0, 2)
    bars = plane_figure(SweepView(sweep)).axes[0].collections
    segments = [segment for bar in bars for segment in bar.get_segments()]
    assert segments
    assert all(segment[0][0] == segment[1][0] for segment in segments)  # upright ones only


def test_a_name_keeps_off_the_points_the_lines_and_the_edges():
    axes = Figure(figsize=(4, 3), layout="none").add_subplot(xlim=(0, 1), ylim=(0, 1))
    (line,) = axes.plot([0.2, 0.5, 0.5], [0.5, 0.5, 0.9])
    points = [(0.5, 0.5), (0.2, 0.5), (1.0, 0.0)]
    assert label_points(axes, points, ["right", "left", "corner"], ["k"] * 3) == 0
    axes.figure.draw_without_rendering()
    path = line.get_transform().transform_path(line.get_path())
    frame = axes.get_window_extent()
    for text in axes.texts:
        box = Text.get_window_extent(text)
        assert not path.intersects_bbox(box, filled=False), text.get_text()
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1
        assert frame.y0 <= box.y0 <= box.y1 <= frame.y1


def test_names_that_find_no_room_are_counted():
    axes = Figure(figsize=(1, 1), layout="none").add_subplot(xlim=(0, 1), ylim=(0, 1))
    lost = label_points(axes, [(0.5, 0.5)] * 40, ["a name"] * 40, ["k"] * 40, rings=1)
    assert 0 < lost == 40 - len(axes.texts)


def of_one_seed(**changes):
    one = summary({"temperature": (0.2, 0.7, 1.0, 1.4), "top_p": (0.5, 0.9)})
    settings = tuple(replace(setting, cells=1) for setting in one.settings)
    return replace(one, settings=settings, seeds=(3,), **changes)


def test_of_one_seed_no_interval_is_claimed_or_drawn_and_no_line_joins_single_runs():
    for picture, make in pictures(of_one_seed()):
        figure = make()
        said = " ".join(text.get_text() for text in figure.texts)
        assert "interval" not in said, picture
        for axes in figure.axes:
            assert not [c for c in axes.collections if type(c).__name__ == "LineCollection"], (
                picture
            )
            assert {line.get_linestyle() for line in data_lines(axes)} <= {"None"}, picture


def test_lines_are_named_at_their_ends_in_colours_of_their_own():
    letters = tuple((letter,) for letter in "abcdefghi")
    for axis, values in (("top_p", (0.5, 0.9, 1.0)), ("stop", letters)):
        _, axes = curves(SweepView(summary({"temperature": (0.2, 0.7, 1.4), axis: values})))
        one = axes["accuracy", None]
        assert one.get_legend() is None
        assert len({line.get_color() for line in data_lines(one)}) == len(values)
        assert {text.get_text() for text in one.texts} == {value_name(value) for value in values}
        right = max(line.get_xdata()[-1] for line in data_lines(one))
        assert all(text.xy[0] == right for text in one.texts)


def test_a_model_in_a_folder_is_named_without_its_path():
    _, make = next(pictures(of_one_seed(name="/home/me/models/tiny")))
    said = " ".join(text.get_text() for text in make().texts)
    assert "tiny" in said
    assert "/home" not in said


@pytest.mark.parametrize("metric", ["self_bleu_4", "accuracy"])
def test_one_number_is_drawn_large(metric, tmp_path):
    for sweep in (SWEEPS["two"], SWEEPS["tasks"]):
        draw_metric(sweep, tmp_path / "one.svg", metric)
        text = (tmp_path / "one.svg").read_text()
        assert "over temperature" in text


def test_a_number_that_the_cells_lack_is_told(tmp_path):
    with pytest.raises(UsageError, match="no accuracy"):
        draw_metric(summary(without=("accuracy",)), tmp_path / "x.png", "accuracy")
    with pytest.raises(UsageError, match="nothing varies"):
        draw_metric(summary({"temperature": (1.0,)}), tmp_path / "x.png", "accuracy")
