"""A sweep's table: it fits, its numbers are the summary's, and no name steers the terminal."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from sweep_inputs import HOSTILE, summary

from decodecli.records.metrics import METRICS
from decodecli.records.sweep import Estimate, SettingSummary
from decodecli.render.plots.sweep_data import (
    METRIC,
    common_facts,
    constants,
    is_geometric,
    layout,
    lines,
    seeds_name,
    shortened,
)
from decodecli.render.sweep_files import summary_csv, summary_markdown
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.sweep_table import sparkline, sweep_lines
from decodecli.render.theme import Theme

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
TWO = {"temperature": (0.0, 0.7, 1.0, 1.4, 20.0), "top_p": (0.2, 0.9)}


def table(shown, width=80, **more):
    return [ESCAPE.sub("", line) for line in sweep_lines(shown, Style(width=width, **more))]


def headed(rows):
    """The headings and what is below them."""
    return rows[rows.index("") + 1 :]


def named(rows):
    """The rows below the headings, as cells by heading; intervals stay out."""
    split = ([c for c in row.split() if not re.fullmatch(r"\d+–\d+", c)] for row in headed(rows))
    headings, *found = split
    return [dict(zip(headings, row, strict=False)) for row in found]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize(
    "axes",
    [
        {},
        TWO,
        {"bos": (True, False, None), "stop": ((), ("\n", "日本" * 30), HOSTILE)},
        {"temperature": tuple(k / 100 for k in range(150))},
        {"temperature": (1e-10, 1.0), "top_k": (0, 100_000), "eta_cutoff": (0.0, 3e-4)},
    ],
    ids=["none", "two", "text", "many", "wide"],
)
def test_every_line_fits_and_none_steers_the_terminal(axes, width, colour, encoding):
    shown = summary(axes, tasks=("knowledge", *HOSTILE[:3]), name="".join(HOSTILE))
    style = Style(width=width, theme=Theme.full() if colour else Theme(), encoding=encoding)
    for line in sweep_lines(shown, style):
        plain = ESCAPE.sub("", line)
        assert cell_len(plain) <= width
        assert not STEERING.search(plain)
        plain.encode(encoding)


def test_a_row_has_its_settings_numbers():
    shown = summary(TWO)
    rows = named(table(shown, 200))
    for row, setting in zip(rows, shown.settings, strict=False):
        assert float(row["T"]) == setting.setting["temperature"]
        assert float(row["top_p"]) == setting.setting["top_p"]
        for name, estimate in setting.numbers.items():
            assert row[METRIC[name].heading] == METRIC[name].text(estimate.value)
    assert float(rows[0]["logprob"].replace("−", "-")) == -0.4


def test_columns_give_way_in_a_stated_order():
    headings = {width: headed(table(summary(TWO), width))[0].split() for width in (36, 60, 80, 120)}
    assert headings[36] == ["T", "top_p", "logprob", "accuracy"]
    assert headings[60] == ["T", "top_p", "logprob", "distinct-2", "self-BLEU", "accuracy"]
    assert headings[80] == [
        *headings[60][:3],
        "entropy",
        *headings[60][3:5],
        "identical",
        "accuracy",
    ]
    assert {"perplexity", "repetition", "divergence"} <= set(headings[120])


def test_points_stand_in_a_line():
    rows = [row for row in table(summary(TWO), 80)[3:] if re.match(r" *\d", row)]
    for column in range(80):
        found = {row[column : column + 1] == "." for row in rows}
        if True in found and column > 5:
            assert found == {True}


def test_accuracy_has_its_interval_behind_it():
    numbers = {"accuracy": Estimate(0.7, 0.0812, 0.9281, 10)}
    shown = summary(
        TWO, settings=(SettingSummary({"temperature": 1.0, "top_p": 0.9}, None, 10, numbers),)
    )
    assert "70.0%  8–93" in table(shown)[3]
    alone = {"accuracy": Estimate(0.7, None, None, 1)}
    shown = summary(
        TWO, settings=(SettingSummary({"temperature": 1.0, "top_p": 0.9}, None, 1, alone),)
    )
    assert table(shown)[3].endswith("70.0%")


def test_a_number_that_nobody_has_gets_no_column_and_one_that_some_have_a_dot():
    rows = table(summary(TWO, without=("self_bleu_4", "accuracy")))
    assert "self-BLEU" not in rows[2]
    assert "accuracy" not in rows[2]
    rows = table(summary({"temperature": (0.2, 1.0)}, tasks=("knowledge", "story")))
    assert rows[4].split()[-1] == "·"


def test_under_each_column_there_is_its_curve_over_temperature():
    rows = table(summary(TWO))
    first, second = (row for row in rows if "→" in row)
    assert first.split()[:2] == ["T→", "0.2"]
    assert second.split()[:2] == ["T→", "0.9"]
    assert second.split()[2][0] == "█"  # the logprob falls
    assert second.split()[2][-1] == "▁"
    assert not any("→" in row for row in table(summary({"temperature": (0.2, 1.0)})))
    many = {"temperature": (0.2, 0.7, 1.0), "top_k": tuple(range(1, 20))}
    assert not any("→" in row for row in table(summary(many)))


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert sparkline([0, 1, None, 7], (0, 7)) == "▁▂ █"
    assert sparkline([3, 3], (3, 3)) == "▅▅"
    assert sparkline([0, 9], (0, 9), ascii_only=True).isascii()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("settings", [3, 12, 16, 17])
def test_a_curve_has_a_point_for_each_setting_or_is_not_there(width, settings):
    shown = summary({"temperature": tuple(round(0.1 * k, 1) for k in range(settings))})
    rows = table(shown, width)
    curves = [row.split()[1:] for row in rows if "→" in row]
    assert all(len(curve) == settings for row in curves for curve in row)
    assert bool(curves) == (settings <= 16)


def test_columns_that_have_no_room_are_named_once():
    for width in (60, 80, 120, 300):
        rows = table(summary(TWO), width)
        said = " ".join(rows).partition("summary.md has the rest: ")[2]
        headings = {metric.heading for metric in METRIC.values()}
        assert {name.strip(" ,") for name in said.split(",") if name} == headings - set(
            headed(rows)[0].split()
        )


def test_what_is_constant_and_the_only_prompt_are_told():
    constant = {"max_new_tokens": 20, "top_p": 0.9, "top_k": 0, "stop": (), "bos": None}
    shown = summary(constant=constant, prompts=1, prompt="Once upon\x1b a time " * 9)
    rows = table(shown)
    assert rows[1] == "constant: top_p 0.9 · up to 20 tokens · BOS auto"
    assert rows[2].startswith("prompt: Once upon␛ a time")
    assert rows[3] == ""
    text = summary_markdown(shown)
    assert "\n\nConstant: top\\_p 0.9 · up to 20 tokens · BOS auto\n\nPrompt: Once" in text


def test_prompts_that_have_rows_are_told_by_their_ids():
    shown = summary(TWO, prompt_texts={"p0": "Once upon\x1b a time " * 9, "p|1": ""})
    rows = table(shown)
    assert rows[1].startswith("p0: Once upon␛ a time")
    assert rows[1].endswith("…")
    assert rows[2] == "p|1: (empty)"
    assert rows[3] == ""
    assert "\n\np&#124;1: (empty)\n\n" in summary_markdown(shown)
    assert common_facts(shown)[1] == "p|1 “”"


@pytest.mark.parametrize(
    ("params", "told", "words"),
    [
        ({"temperature": 1.4, "top_p": 1.0, "bos": True}, (), ["T 1.4", "BOS on"]),
        ({"temperature": 1.0, "top_p": 1.0}, ("top_p",), ["T 1", "top_p 1"]),
        ({"temperature": 0.0, "greedy": True, "seed": 3}, (), ["T 0 (greedy)"]),
        ({"bos": False, "max_new_tokens": 1, "stop": ["\n"]}, (), None),
        ({"top_p": 0.123456789}, (), ["top_p 0.123"]),
        ({}, (), []),
    ],
)
def test_constants_are_what_is_not_neutral(params, told, words):
    words = ["stop ↵", "up to 1 token", "BOS off"] if words is None else words
    assert constants(params, told) == words


def test_numbers_of_many_digits_are_shown_in_few():
    values = (0.1, 0.17782794100389, 3.1622776601684, 0.12345)
    shown = summary({"temperature": values})
    assert [row["T"] for row in named(table(shown))][:4] == ["0.1", "0.178", "3.16", "0.12345"]
    assert "0.17782794100389" in summary_csv(shown)
    assert "0.17782794100389" in summary_markdown(shown)


@given(st.lists(st.one_of(st.floats(-1e300, 1e300), st.floats(0.1, 0.101), st.none()), max_size=30))
def test_two_values_never_become_one(values):
    short = shortened(values)
    kept = {value for value in values if isinstance(value, float) and abs(value) < float("inf")}
    assert len(set(short.values())) == len(short) == len(kept)
    for value, other in short.items():
        assert other == pytest.approx(value, rel=0.006)


def test_intervals_that_say_nothing_are_left_out():
    flat = Estimate(0.0, 0.0, 0.434, 5)
    numbers = {"repetition_rate": flat, "accuracy": flat, "mean_entropy": Estimate(1, 1.0, 1.0, 5)}
    shown = summary({}, settings=(SettingSummary({}, None, 5, numbers),), cells=1, finished=1)
    (row,) = [line for line in summary_markdown(shown).splitlines() if line.startswith("| all")]
    assert row == "| all cells | 5 | 1.00 | 0.0% | 0.0% [0.0%, 43.4%] |"
    assert table(shown)[0].endswith("1 cell")


def test_a_long_table_is_cut_and_says_so():
    shown = summary({"temperature": tuple(k / 100 for k in range(150))})
    rows = table(shown)
    assert "… and 50 more" in rows
    assert len(rows) < 110


def test_what_failed_or_is_not_finished_is_told():
    rows = table(summary(TWO, cells=200, finished=120, failed=3))
    assert "120 of 200 cells" in rows[0]
    assert "3 failed" in rows[0]
    assert "no cell is finished" in table(summary(TWO, settings=(), finished=0))


@pytest.mark.parametrize("tasks", [(None,), ("knowledge", "story")])
def test_csv_holds_every_number_in_full(tasks):
    shown = summary(TWO, tasks=tasks)
    rows = list(csv.DictReader(io.StringIO(summary_csv(shown))))
    assert len(rows) == len(shown.settings)
    for row, setting in zip(rows, shown.settings, strict=True):
        assert row["task"] == (setting.task or "")
        assert int(row["cells"]) == setting.cells
        assert {k: float(row[k]) for k in setting.setting} == setting.setting
        for name in METRICS:
            cells = [row[name + end] for end in ("", "_low", "_high", "_n")]
            if name not in setting.numbers:
                assert cells == [""] * 4
                continue
            found = setting.numbers[name]
            assert [float(cell) for cell in cells] == [
                found.value,
                found.low,
                found.high,
                found.count,
            ]


def test_csv_spells_values_as_options_do():
    axes = {"bos": (True, False, None), "stop": ((), ("a,b", 'c"\n'))}
    rows = list(csv.DictReader(io.StringIO(summary_csv(summary(axes)))))
    assert [row["bos"] for row in rows] == ["true", "true", "false", "false", "", ""]
    assert rows[1]["stop"] == 'a,b c"\n'


def test_markdown_has_every_number_with_its_interval_and_keeps_text_as_text():
    shown = summary({"temperature": (0.2, 1.0)}, tasks=("a|b_c", "<script>"), name="[x](y)")
    text = summary_markdown(shown)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 2 + len(shown.settings)
    assert "<script>" not in text
    assert "a&#124;b\\_c" in text
    assert "\\[x\\](y)" in text
    found = shown.settings[0].numbers["accuracy"]
    low, high = (METRIC["accuracy"].text(end) for end in (found.low, found.high))
    assert f"{METRIC['accuracy'].text(found.value)} [{low}, {high}]" in rows[2]


def test_axes_find_their_places():
    found = layout(summary({"top_p": (0.2, 0.9), "temperature": (0.2, 1.0), "bos": (True, False)}))
    assert (found.across, found.line, found.panels) == ("temperature", "top_p", ("bos",))
    found = layout(summary({"bos": (True, False), "top_k": (1, 5, 9)}))
    assert (found.across, found.line, found.panels) == ("top_k", "bos", ())
    assert layout(summary({})).across is None


def test_a_zipped_axis_is_no_line_of_its_own():
    shown = summary(TWO)
    pairs = {0.0: 0.2, 0.7: 0.2, 1.0: 0.9, 1.4: 0.9, 20.0: 0.9}
    kept = tuple(s for s in shown.settings if pairs[s.setting["temperature"]] == s.setting["top_p"])
    zipped = summary(TWO, settings=kept)
    assert layout(zipped).along == ("top_p",)
    assert layout(zipped).line is None
    (line,) = lines(zipped, layout(zipped))
    assert [x for x, _ in line.points("accuracy")] == [0.0, 0.7, 1.0, 1.4, 20.0]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((0.25, 0.5, 1, 2, 4), True),
        ((0.001, 0.01, 1.0, 1.8, 20), True),
        ((0, 0.01, 0.1, 1), True),
        ((0.2, 0.7, 1.0, 1.4), False),
        (tuple(k / 10 for k in range(1, 21)), False),
        ((0.2, 1.4), False),
        ((0.001, 20), True),
        ((1,), False),
    ],
)
def test_values_that_grow_by_ratios_are_told_from_those_that_grow_by_steps(values, wanted):
    assert is_geometric(values) == wanted


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ((7,), "seed 7"),
        ((0, 1, 2), "seeds 0–2"),
        ((9, 1), "seeds 9, 1"),
        (tuple(range(0, 20, 2)), "10 seeds"),
    ],
)
def test_seeds_are_named_shortly(seeds, words):
    assert seeds_name(seeds) == words
