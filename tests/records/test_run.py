"""Records: plain values whose JSON is strict, one object a line, and loses nothing."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodecli.records.json_lines import step_json_line, to_json_line
from decodecli.records.run import (
    SCHEMA,
    Candidate,
    Cut,
    Explanation,
    ModelInfo,
    Run,
    RunHeader,
    RunSummary,
    Step,
    Watched,
    WhatIf,
    Without,
    exp_or_zero,
    perplexity,
)

TEXT = st.text(max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
ID = st.integers(0, 10**6)

WHAT_IFS = st.builds(
    WhatIf, settings=TEXT, token_id=ID, token=TEXT, rank=ID, logprob=NUMBER, final_logprob=NUMBER,
    kept=ID, first_divergence=st.booleans(),
)  # fmt: skip
EXPLANATIONS = st.builds(
    Explanation, temperature=NUMBER, top_id=ID, top=TEXT,
    cuts=st.lists(st.builds(Cut, stage=TEXT, tokens=ID, mass=NUMBER), max_size=1).map(tuple),
    without=st.lists(st.builds(Without, stage=TEXT, token_id=ID, token=TEXT), max_size=1).map(tuple),
)  # fmt: skip
CANDIDATES = st.builds(
    Candidate, rank=ID, token_id=ID, token=TEXT, logit=NUMBER, logprob=NUMBER,
    tempered_logprob=NUMBER, cumulative=NUMBER, final_logprob=st.none() | NUMBER,
    removed_by=st.none() | TEXT,
)  # fmt: skip
STEPS = st.builds(
    Step, index=ID, position=ID, token_id=ID, token=TEXT, text=TEXT, rank=ID, logit=NUMBER,
    logprob=NUMBER, tempered_logprob=NUMBER, final_logprob=NUMBER, entropy=NUMBER,
    final_entropy=NUMBER, kept=ID, candidates=st.lists(CANDIDATES, max_size=3).map(tuple),
    what_if=st.lists(WHAT_IFS, max_size=1).map(tuple),
    watch=st.lists(CANDIDATES.map(lambda c: Watched(**c.as_dict(), watch="a")), max_size=1).map(tuple),
    explain=st.none() | EXPLANATIONS,
)  # fmt: skip
MODELS = st.builds(
    ModelInfo, name=TEXT, revision=st.none() | TEXT, parameters=ID, vocab_size=ID, dtype=TEXT,
    device=TEXT, quantize=TEXT,
)  # fmt: skip
HEADERS = st.builds(
    RunHeader, decodecli=TEXT, versions=st.dictionaries(TEXT, TEXT, max_size=2), model=MODELS,
    prompt=TEXT, prompt_ids=st.lists(ID, max_size=4).map(tuple),
    params=st.dictionaries(TEXT, NUMBER | TEXT | st.none() | st.booleans(), max_size=3),
    sources=st.dictionaries(TEXT, TEXT, max_size=3), order=st.lists(TEXT, max_size=3).map(tuple),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
SUMMARIES = st.builds(
    RunSummary, text=TEXT, token_ids=st.lists(ID, max_size=4).map(tuple), finish_reason=TEXT,
    prompt_tokens=ID, new_tokens=ID, mean_logprob=st.none() | NUMBER,
    perplexity=st.none() | NUMBER, seconds=st.dictionaries(TEXT, NUMBER, max_size=3),
    tokens_per_second=st.none() | NUMBER,
)  # fmt: skip


def strict(line: str):
    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def plain(value):
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@given(st.one_of(HEADERS, STEPS, SUMMARIES))
def test_every_record_survives_strict_json_on_one_line_exactly(record):
    line = to_json_line(record.as_dict())
    assert "\n" not in line
    assert "\r" not in line
    read = strict(line.encode("utf-8").decode("utf-8"))
    assert read == plain(record.as_dict())
    kind = {RunHeader: "run", Step: "step", RunSummary: "summary"}[type(record)]
    assert read.pop("type") == kind
    if kind == "run":
        assert read.pop("schema") == SCHEMA == 1
    fields = plain(dataclasses.asdict(record))
    fields = {
        k: v
        for k, v in fields.items()
        if v or k not in ("what_if", "watch", "explain", "constrained_mass")
    }
    assert read == fields, "every field is in the JSON, by its name"


@given(STEPS)
def test_a_step_s_line_is_the_same_on_its_short_way(step):
    assert step_json_line(step) == to_json_line(step.as_dict())


@given(STEPS.filter(lambda step: step.candidates), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_step_that_is_not_finite_has_a_line(step, value):
    row = dataclasses.replace(step.candidates[0], cumulative=value)
    for wrong in (
        dataclasses.replace(step, entropy=value),
        dataclasses.replace(step, candidates=(row, *step.candidates[1:])),
    ):
        with pytest.raises(ValueError, match=r"JSON|float"):
            step_json_line(wrong)


def test_a_step_of_whole_numbers_has_a_line_too():
    step = Step(0, 1, 2, "a", "a", 1, 3, -1, -1, 0, 2, 2, 5, ())
    assert step_json_line(step) == to_json_line(step.as_dict())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("depth", [0, 1])
def test_what_is_not_finite_is_never_written(value, depth):
    record = {"logit": value} if depth == 0 else {"candidates": [{"logit": value}]}
    with pytest.raises(ValueError, match=r"JSON|float"):
        to_json_line(record)


def test_text_beyond_ascii_is_written_as_it_is():
    assert "日本 é" in to_json_line({"text": "日本 é"})


@given(NUMBER)
def test_numbers_are_written_with_every_digit(value):
    assert strict(to_json_line({"x": value}))["x"] == value


@given(HEADERS, st.lists(STEPS, max_size=3), SUMMARIES)
def test_a_run_is_its_header_steps_and_summary(header, steps, summary):
    run = Run(header, tuple(steps), summary)
    kinds = [record["type"] for record in run.as_dicts()]
    assert kinds == ["run", *["step"] * len(steps), "summary"]
    assert run.text == summary.text


@pytest.mark.parametrize("record", [Candidate, Step, RunHeader, RunSummary, ModelInfo])
def test_records_are_frozen(record):
    assert record.__dataclass_params__.frozen


@given(STEPS)
def test_surprisal_is_minus_the_logprob(step):
    assert step.surprisal == -step.logprob


def test_the_logarithm_none_stands_for_zero():
    assert exp_or_zero(None) == 0
    assert exp_or_zero(0.0) == 1
    assert exp_or_zero(math.log(0.25)) == pytest.approx(0.25)
    assert exp_or_zero(-1e9) == 0


def test_perplexity_is_a_number_or_nothing():
    assert perplexity(None) is None
    assert perplexity(0.0) == 1
    assert perplexity(-math.log(8)) == pytest.approx(8)


@given(st.floats(max_value=0, allow_nan=False))
def test_perplexity_is_never_infinite(mean):
    value = perplexity(mean)
    assert value is None or 1 <= value < math.inf


def test_records_import_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import decodecli.records.run, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
