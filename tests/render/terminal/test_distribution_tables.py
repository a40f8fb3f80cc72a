"""Distributions, texts and comparisons as tables: they fit, line up, and let nothing steer the screen."""

from __future__ import annotations

import dataclasses

import pytest
from rich.cells import cell_len

from decodecli.analysis.distribution import softmax
from decodecli.records.distribution import (
    ComparisonReport,
    Continuation,
    Difference,
    Position,
    TextReport,
)
from decodecli.records.run import ModelInfo
from decodecli.render.terminal.distribution_tables import (
    comparison_lines,
    continuation_lines,
    distribution_lines,
    position_lines,
    report_header,
)
from decodecli.render.terminal.step_table import Style
from decodecli.settings import SamplingParams

HOSTILE = ["[/INST]", "[bold]", "\x1b]0;x\x07", "\r", "\u202eabc", "\x9b31m"]
MODEL = ModelInfo("a\x1bmodel", None, 8_400_000, 6, "float32", "cpu", "none")


def report(temperatures=(0.4, 1.0, 1.6), **more):
    names = ["▁Tokyo", "日本", "the", *HOSTILE]
    return softmax({name: float(-i) for i, name in enumerate(names)}, temperatures, **more)


def harmless(lines: list[str]) -> bool:
    text = "".join(lines)
    return not any(character in text for character in "\x1b\x07\r\x9b\u202e")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("params", [None, SamplingParams(top_p=0.8)])
def test_a_distribution_fits_the_screen_and_lists_every_temperature(width, params):
    lines = distribution_lines(report(params=params), Style(width=width))
    assert all(cell_len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert all(f"T={t}" in text for t in ("0.4", "1", "1.6"))
    assert harmless(lines)
    assert "[/INST]" in text
    assert "[bold]" in text


@pytest.mark.parametrize("params", [None, SamplingParams(top_p=0.8)])
def test_the_names_of_the_totals_are_whole_at_40_columns(params):
    text = "\n".join(distribution_lines(report(params=params), Style(width=40)))
    assert all(f"tokens for {mass} %" in text for mass in (50, 90, 99))


def test_columns_line_up_with_wide_characters():
    lines = distribution_lines(report(), Style(width=120))
    rows = lines[1:10]
    # The logit's point stands behind the token, so a wide character counted once would move it.
    assert len({cell_len(line[: line.index(".")]) for line in rows}) == 1


def test_removed_rows_name_the_stage_and_the_target_is_marked():
    lines = distribution_lines(
        report((1.0,), params=SamplingParams(top_k=2), target="日本"), Style()
    )
    assert sum("top_k" in line for line in lines) == 7
    assert next(line for line in lines if line.startswith("▸")).split()[2] == "日本"
    assert any(line.strip().startswith("cross-entropy") for line in lines)


def positions() -> TextReport:
    first = Position(0, 1, "<s>", "")
    others = [
        Position(i + 1, i, token, token, i + 1, -0.5 * i, 1.0, "▁x", 0.4)
        for i, token in enumerate(["▁a", *HOSTILE])
    ]
    return TextReport(MODEL, (first, *others), 20, 16, 8, 2)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_text_is_shown_token_by_token(width):
    lines = position_lines(positions(), Style(width=width))
    assert harmless(lines)
    assert sum("[bold]" in line for line in lines) >= 2  # in the text, and in its row
    assert "2 windows of 16 tokens, 8 apart" in lines
    if width >= 60:
        assert all(cell_len(line) <= width for line in lines)


def test_variants_stand_side_by_side_with_their_distances():
    one = dataclasses.replace(report((1.0,)), model=MODEL, prompt="x\x1b", prompt_ids=(1, 2))
    both = ComparisonReport(
        "dtype",
        ("float32", "\x1bodd"),
        (one, one),
        (Difference(0, 0, 0), Difference(2e-5, 0.25, 3)),
    )
    lines = comparison_lines(both, Style())
    assert harmless(lines)
    assert any("KL, nats" in line and "2e-5" in line for line in lines)
    assert any("total variation" in line and "0.2500" in line for line in lines)
    assert report_header(one, Style())[0].startswith("a")


def test_continuations_show_each_token():
    chain = Continuation(
        " To\x1bkyo", (5, 6), ("▁To", "\x9bkyo"), (1, 22), (3.0, 1.0), (-0.1, -2.0)
    )
    single = Continuation("x", (7,), ("▁x",), (3,), (2.5,), (-1.0,))
    lines = continuation_lines([chain, single], Style())
    assert harmless(lines)
    assert any("2 tokens" in line for line in lines)
    assert any("rank 22" in line for line in lines)
    assert any("rank 3 · logit 2.50" in line for line in lines)
    assert continuation_lines([], Style()) == []
