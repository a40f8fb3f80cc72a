"""Constraints: what comes out matches, and what cannot be is explained."""

from __future__ import annotations

import json
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import decodecli
from decodecli.decoding.beam_search import BeamSearch
from decodecli.decoding.decode import Decoding
from decodecli.decoding.prompt import prefill
from decodecli.errors import UsageError
from decodecli.settings import BeamParams, SamplingParams

pytest.importorskip("llguidance", reason="the extra decodecli[constrain] is not installed")

EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
ATOMS = st.sampled_from(
    ["a", "7", "[a-f]", "[0-9]", "(yes|no)", " the", r"\.", "[^x]", "日本", r"\n", "é", "(a|bc|)"]
)
REPEATED = st.tuples(ATOMS, st.sampled_from(["", "", "?", "{2}", "{1,3}"])).map("".join)
REGEXES = st.lists(REPEATED, min_size=1, max_size=5).map("".join)


@EXAMPLES
@given(regex=REGEXES, seed=st.integers(0, 99), hot=st.sampled_from([0.0, 1.0, 3.0]))
def test_a_text_that_ended_matches_its_regex(llama_lm, regex, seed, hot):
    params = SamplingParams(
        constraint=f"regex:{regex}", max_new_tokens=60, temperature=hot, seed=seed
    )
    run = Decoding(prefill(llama_lm, [1, 5, 6]), params)
    list(run)
    summary = run.summary()
    if summary.finish_reason == "stop":
        assert re.fullmatch(regex, summary.text), (regex, summary.text)
    else:
        assert any("before its constraint is met" in notice for notice in run.notices)


LEAVES = st.sampled_from(
    [
        ({"enum": ["red", "green", 3]}, lambda v: v in ("red", "green", 3)),
        ({"type": "boolean"}, lambda v: isinstance(v, bool)),
        (
            {"type": "integer", "minimum": 0, "maximum": 50},
            lambda v: type(v) is int and 0 <= v <= 50,
        ),
        ({"type": "null"}, lambda v: v is None),
        ({"type": "string", "maxLength": 4}, lambda v: isinstance(v, str) and len(v) <= 4),
        (
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
            lambda v: isinstance(v, list) and 1 <= len(v) <= 2,
        ),
    ]
)


@EXAMPLES
@given(parts=st.lists(LEAVES, min_size=1, max_size=3), seed=st.integers(0, 99))
def test_a_text_that_ended_is_valid_under_its_schema(llama_lm, tmp_path, parts, seed):
    names = [f"k{number}" for number in range(len(parts))]
    schema = {
        "type": "object", "properties": {n: part for n, (part, _) in zip(names, parts, strict=True)},
        "required": names, "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},
    }  # fmt: skip
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    run = decodecli.generate(
        llama_lm, [1, 5, 6], constraint=f"json-schema:{path}", max_new_tokens=110, seed=seed,
        temperature=0.8,
    )  # fmt: skip
    if run.summary.finish_reason == "stop":
        value = json.loads(run.text)
        assert list(value) == names
        assert all(holds(value[n]) for n, (_, holds) in zip(names, parts, strict=True))


@pytest.mark.parametrize("prompt", ["The capital of Japan is", "Q:"])
def test_what_is_ruled_out_is_named_in_the_step_with_its_mass(lm, prompt):
    run = decodecli.generate(
        lm, prompt, constraint="choice: Kyoto, Osaka", seed=1, candidates=lm.info.vocab_size
    )
    assert run.text in (" Kyoto", " Osaka")
    assert run.summary.finish_reason == "stop"
    for step in run:
        removed = [row for row in step.candidates if row.removed_by == "constraint"]
        assert len(removed) + step.kept == lm.info.vocab_size
        mass = sum(torch.tensor([row.logprob for row in removed]).exp().tolist())
        assert step.constrained_mass == pytest.approx(mass, abs=1e-4)
        assert json.loads(json.dumps(step.as_dict()))["constrained_mass"] == step.constrained_mass
    assert "constraint: ruled out" in str(run)
    assert "constrained_mass" not in decodecli.generate(lm, "Q", max_new_tokens=1)[0].as_dict()


def test_beams_explanations_greedy_and_filters_keep_to_it(lm):
    beams = BeamSearch(
        prefill(lm, "The capital of Japan is"),
        SamplingParams(constraint="choice: Kyoto, Osaka"),
        BeamParams(num_beams=3, num_return_sequences=3),
    ).run()
    assert {h.text for h in beams.hypotheses if h.finish_reason == "stop"} == {" Kyoto", " Osaka"}
    settings_of = {"constraint": "regex:( [a-z]+){3}", "max_new_tokens": 30, "temperature": 1.5}
    run = decodecli.generate(
        lm, "Once", top_p=0.9, explain=True, min_new_tokens=3, seed=3, **settings_of
    )
    assert re.fullmatch("( [a-z]+){3}", run.text)
    assert "constraint removed" in run[0].sentence
    for order in ("llama.cpp", "vllm", "mlx"):
        text = decodecli.generate(lm, "Once", top_p=0.9, order=order, seed=3, **settings_of).text
        assert re.fullmatch("( [a-z]+){3}", text)


def test_a_lark_and_a_gbnf_grammar_are_read(lm, tmp_path):
    (tmp_path / "a.lark").write_text('start: " " digit digit\ndigit: /[0-9]/\n')
    (tmp_path / "a.gbnf").write_text('root ::= " " [0-9] [0-9]\n')
    for name in ("a.lark", "a.gbnf"):
        run = decodecli.generate(lm, "1 + 1 =", constraint=f"grammar:{tmp_path / name}", seed=0)
        assert re.fullmatch(" [0-9]{2}", run.text)


def test_a_model_without_an_end_stops_where_nothing_can_follow(llama_lm):
    eos = llama_lm.eos_ids
    object.__setattr__(llama_lm, "eos_ids", frozenset())
    try:
        run = decodecli.generate(llama_lm, [1, 5], constraint="choice:yes,no", max_new_tokens=20)
    finally:
        object.__setattr__(llama_lm, "eos_ids", eos)
    assert run.text in ("yes", "no")
    assert run.summary.finish_reason == "stop"


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("regex:(", "cannot be used"),
        ("regex:[^\\x00-\\x{10ffff}]", "allows no text"),
        ("choice:a,,b", "an empty choice"),
        ("maybe", "must be choice"),
        ("json:x", "must be choice"),
        ("json-schema:nowhere.json", "no such file"),
    ],
)
def test_what_is_no_constraint_is_explained(llama_lm, constraint, words):
    with pytest.raises(UsageError, match=words):
        decodecli.generate(llama_lm, [1, 5], constraint=constraint)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "[1]", "not an object"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"enum": []}', "cannot be used"),
        ("a.lark", "start: nothing", "cannot be used"),
        ("a.gbnf", "root ::= (", "no GBNF|cannot be used"),
    ],
)
def test_files_that_are_none_are_explained(llama_lm, tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    kind = "json-schema" if name.endswith("json") else "grammar"
    with pytest.raises(UsageError, match=words):
        decodecli.generate(llama_lm, [1, 5], constraint=f"{kind}:{tmp_path / name}")
