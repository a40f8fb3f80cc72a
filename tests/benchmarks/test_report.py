"""Rows, targets, and their JSON form."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.drawing import as_markdown, as_text, figure, spread, verdict
from benchmarks.report import Report, Row, Target, at_least, at_most, compared
from decodecli.analysis.timing import Samples

MACHINE = {
    "cpu": "A Processor",
    "instructions": "AVX2",
    "cores": 2,
    "memory_gib": 8.0,
    "gpu": None,
    "system": "Linux x86_64",
    "versions": {"decodecli": "0.1.0", "torch": "2.9.0"},
    "wait_policy": "passive",
}


@pytest.fixture
def report():
    fast, slow = Samples((22.0, 24.0, 20.0)), Samples((20.0, 20.0, 20.0))
    return Report(
        ("python", "-m", "benchmarks", "--quick"),
        MACHINE,
        {"repeat": 3},
        [
            Row("decode", "gpt2 · nf4", "full trace", "generate", "tokens/s", fast, slow,
                at_least(1.1), "64 tokens"),
            Row("decode", "gpt2 · nf4", "full trace", "generate, scores", "tokens/s", fast, slow),
            Row("sampler", "big", "ours", "theirs", "ms", slow, fast, at_most(0.15)),
            Row("memory", "tiny", "growth", "", "bytes/step", Samples((512.0,)),
                target=at_most(4096)),
            Row("llama", "gpt2 · nf4", "ours", "llama.cpp", skipped="not installed: gguf"),
        ],
    )  # fmt: skip


def test_a_target_holds_on_its_own_side_and_at_its_bound():
    assert at_least(1.1).holds(1.1)
    assert not at_least(1.1).holds(1.09)
    assert at_most(0.15).holds(0.15)
    assert not at_most(0.15).holds(0.16)
    assert (str(at_least(1.1)), str(at_most(4096))) == ("≥ 1.1", "≤ 4096")
    with pytest.raises(ValueError, match="≥ or ≤"):
        Target("<", 1)


def test_a_row_holds_by_the_median_of_its_ratio(report):
    decode, untargeted, sampler, memory, skipped = report.rows
    assert decode.ratio.median == pytest.approx(1.1)
    assert decode.holds is True
    assert untargeted.holds is None
    assert sampler.holds is False
    assert (memory.ratio, memory.holds) == (None, True)
    assert (skipped.figure, skipped.holds) == (None, None)
    assert report.missed == [sampler]


def test_one_side_is_compared_with_each_of_the_others():
    found = {name: Samples((value,)) for name, value in (("us", 6.0), ("a", 3.0), ("b", 2.0))}
    rows = compared("decode", "m", "ours", found, "tokens/s", {"b": at_least(2)}, "a note")
    assert [(row.peer, row.ratio.median) for row in rows] == [("a", 2), ("b", 3)]
    assert [row.target for row in rows] == [None, at_least(2)]
    assert all(row.what == "ours" and row.note == "a note" for row in rows)


def test_the_json_form_is_strict_and_complete(report):
    report.rows.append(Row("decode", "m", "ours", "theirs", "s", Samples((math.inf,))))
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert list(found) == [
        "type", "schema", "decodecli", "command", "machine", "settings", "rows",
    ]  # fmt: skip
    assert (found["type"], found["schema"]) == ("bench", 1)
    first = found["rows"][0]
    assert list(first) == [
        "section", "subject", "what", "peer", "unit", "ours", "theirs", "ratio", "target",
        "holds", "note", "skipped",
    ]  # fmt: skip
    assert first["ratio"]["median"] == pytest.approx(1.1)
    assert (first["target"], first["holds"]) == ("≥ 1.1", True)
    assert found["rows"][4]["skipped"] == "not installed: gguf"
    assert found["rows"][4]["ours"] is None
    assert found["rows"][5]["ours"]["median"] is None


def test_figures_have_three_digits_and_spreads_two_ends():
    assert figure(Samples((0.012345,)), "s") == "0.0123 s"
    assert figure(Samples((1234.5,)), "tokens/s") == "1,234 tokens/s"
    assert figure(None, "s") == ""
    assert spread(Samples((1.0, 2.0, 3.0))) == "1.5–2.5"
    assert spread(Samples((1.0,))) == ""


def test_the_verdict_counts_targets_and_what_was_left_out(report):
    assert verdict(report) == "2 of 3 targets hold; 1 not measured"
    assert verdict(Report((), MACHINE, {})) == "no targets were measured"


@pytest.mark.parametrize("width", [80, 140])
def test_the_tables_keep_within_the_screen_and_say_everything(report, width):
    text = as_text(report, width, colour=False)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    for word in ("A Processor", "torch 2.9.0", "gpt2", "≥ 1.1", "1.1", "yes", "no", "2 of 3"):
        assert word in text
    assert "not installed: gguf" in " ".join(text.split())


def test_the_tables_keep_to_what_the_stream_can_encode(report):
    as_text(report, 100, colour=False, encoding="ascii").encode("ascii")


def test_colour_is_used_where_it_is_allowed(report):
    assert "\x1b[32m" in as_text(report, 140, colour=True)


def test_the_page_has_the_command_the_machine_and_every_row(report):
    page = as_markdown(report)
    assert "$ python -m benchmarks --quick\n" in page
    assert "A Processor" in page
    assert "| gpt2 · nf4 | full trace | 22 tokens/s | generate | 20 tokens/s | 1.1 |" in page
    assert "- Not measured: gpt2 · nf4: ours against llama.cpp: not installed: gguf." in page
    assert "2 of 3 targets hold" in page
    assert "\n\n\n" not in page


def test_a_ratio_is_taken_repetition_by_repetition():
    # The machine was half as fast in the second repetition: the ratio does not notice.
    ours, theirs = Samples((12.0, 6.0, 12.0)), Samples((10.0, 5.0, 10.0))
    row = Row("decode", "builtin", "speed", ours=ours, theirs=theirs)
    assert row.ratio.values == pytest.approx((1.2, 1.2, 1.2))
