"""What is looked at beside the draw: named tokens, and the draws of other settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import decodecli
from decodecli.analysis.next_token import next_token
from decodecli.config import what_if
from decodecli.decoding.decode import Decoding
from decodecli.decoding.prompt import prefill
from decodecli.errors import UsageError
from decodecli.records.json_lines import step_json_line
from decodecli.render.explanation import Effects
from decodecli.settings import SamplingParams

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.2, 0.7, 1.0, 1.4, 3.0]),
        "top_k": st.sampled_from([1, 2, 5, 20]),
        "top_p": st.sampled_from([0.3, 0.8, 0.95]),
        "min_p": st.sampled_from([0.02, 0.3]),
        "typical_p": st.sampled_from([0.5, 0.9]),
        "repetition_penalty": st.sampled_from([1.3, 2.0]),
        "presence_penalty": st.sampled_from([-1.0, 1.5]),
        "no_repeat_ngram_size": st.sampled_from([1, 2]),
        "xtc_probability": st.sampled_from([0.5]),
        "mirostat": st.sampled_from([2]),
        "order": st.sampled_from(["llama.cpp", "vllm"]),
    },
)


def made(values) -> SamplingParams | None:
    """Settings, None where they contradict each other."""
    try:
        return SamplingParams(max_new_tokens=8, **values)
    except UsageError:
        return None


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=SETTINGS, second=SETTINGS, seed=st.integers(0, 2**32 - 1))
def test_other_settings_draw_what_a_run_with_them_draws_up_to_the_first_divergence(
    tiny_lm, first, second, seed
):
    params, others = made(first), made(second)
    if params is None or others is None:
        return
    prefix = prefill(tiny_lm, [1, 5, 6, 5])
    own = list(Decoding(prefix, params, seed=seed, what_if={"others": others, "own": params}))
    plain = list(Decoding(prefix, params, seed=seed))
    real = [step.token_id for step in Decoding(prefix, others, seed=seed)]
    assert [step.token_id for step in own] == [step.token_id for step in plain]
    assert all(step.what_if[1].token_id == step.token_id for step in own)
    assert not any(step.what_if[1].first_divergence for step in own)
    for index, step in enumerate(own):
        row = step.what_if[0]
        assert row.token_id == real[index]
        assert row.first_divergence == (row.token_id != step.token_id)
        if row.first_divergence:
            assert not any(later.what_if[0].first_divergence for later in own[index + 1 :])
            break


def test_another_seed_is_other_noise(lm):
    run = decodecli.generate(lm, "Once upon a time", seed=1, what_if=["seed=2"], max_new_tokens=12)
    other = decodecli.generate(lm, "Once upon a time", seed=2, max_new_tokens=12)
    divergence = next(step.index for step in run if step.what_if[0].first_divergence)
    drawn = [step.what_if[0].token_id for step in run[: divergence + 1]]
    assert drawn == [step.token_id for step in other[: divergence + 1]]


@pytest.mark.parametrize("values", [{}, {"temperature": 0.6, "top_k": 3}, {"temperature": 0.0}])
def test_a_watched_tokens_numbers_are_those_of_its_row_and_of_inspect_logits(lm, values):
    run = decodecli.generate(
        lm, "The capital of Japan is", seed=1, max_new_tokens=4, candidates=lm.info.vocab_size,
        watch=[" Kyoto", 42], **values,
    )  # fmt: skip
    for step in run:
        rows = {row.token_id: row for row in step.candidates}
        for watched in step.watch:
            row = rows[watched.token_id]
            assert (watched.rank, watched.removed_by) == (row.rank, row.removed_by)
            for name in ("logit", "logprob", "tempered_logprob", "final_logprob", "cumulative"):
                assert getattr(watched, name) == pytest.approx(getattr(row, name), abs=1e-4)
    report = next_token(lm, "The capital of Japan is", [1.0], tokens=[" Kyoto"])[0]
    (row,) = [row for row in report.rows if row.token_id == run[0].watch[0].token_id]
    assert run[0].watch[0].rank == row.rank


def test_a_text_of_several_tokens_is_followed_as_far_as_it_is_there(lm):
    plain = decodecli.generate(lm, "Once upon a time", max_new_tokens=5, temperature=0)
    words = "".join(step.text for step in plain[:3])
    run = decodecli.generate(lm, "Once upon a time", max_new_tokens=5, temperature=0, watch=[words])
    watched = [step.watch[0].token_id for step in run]
    assert watched[:3] == [step.token_id for step in run[:3]]
    assert watched[3] == watched[0]  # it is all there, and may begin again


def test_a_step_says_nothing_of_what_was_not_asked_for(lm):
    step = decodecli.generate(lm, "Once", max_new_tokens=1)[0]
    assert not {"what_if", "watch"} & step.as_dict().keys()
    assert json.loads(step_json_line(step)) == step.as_dict()


@pytest.mark.parametrize("watch", ["99999999", ""])
def test_what_is_no_token_cannot_be_watched(lm, watch):
    with pytest.raises(UsageError, match="--watch"):
        decodecli.generate(lm, "Once", watch=[watch], max_new_tokens=1)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("temperature", "is not NAME=VALUE"),
        ("temprature=1", "no setting 'temprature'"),
        ("temperature=hot", "must be a number"),
        ("temperature=-1", "--what-if temperature=-1: --temperature"),
        ("max_new_tokens=3", "no setting"),
        ("greedy=1,temperature=2", "contradict"),
    ],
)
def test_settings_that_cannot_be_are_explained(wanted, words):
    with pytest.raises(UsageError, match=words):
        what_if(SamplingParams(), wanted)


def test_settings_are_read_as_options_are_spelt():
    words, params = what_if(SamplingParams(top_p=0.5), "top-k=3, greedy=yes")
    assert (words, params.top_k, params.top_p) == ("top-k=3,greedy=yes", 3, 0.5)
    assert params.greedy
    assert what_if(SamplingParams(), {"top_k": 3})[1].top_k == 3


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=SETTINGS, seed=st.integers(0, 2**32 - 1))
def test_an_explanation_says_what_each_stage_cut_and_changed(tiny_lm, values, seed):
    params = made(values)
    if params is None:
        return
    prefix = prefill(tiny_lm, [1, 5, 6, 5])
    explained = list(Decoding(prefix, params, seed=seed, explain=True, candidates=10_000))
    assert [s.token_id for s in explained] == [
        s.token_id for s in Decoding(prefix, params, seed=seed)
    ]
    order = Decoding(prefix, params, seed=seed).chain.order
    for step in explained:
        assert step.explain is not None
        removed = {cut.stage: cut.tokens for cut in step.explain.cuts}
        for cut in step.explain.cuts:
            rows = [row for row in step.candidates if row.removed_by == cut.stage]
            assert len(rows) == cut.tokens
            mass = sum(math.exp(row.tempered_logprob) for row in rows)
            assert cut.mass == pytest.approx(mass, abs=1e-4)
        if "greedy" not in order:
            assert sum(removed.values()) + step.kept == tiny_lm.info.vocab_size
            left = [row for row in step.candidates if row.removed_by is None]
            best = max(row.final_logprob for row in left)
            top = next(row for row in left if row.token_id == step.explain.top_id)
            assert top.final_logprob == pytest.approx(best, abs=1e-6)
        assert [o.stage for o in step.explain.without] == [n for n in order if n != "greedy"]
        assert f"rank {step.rank:,}" in step.sentence
    first = explained[0]
    for other in first.explain.without:
        neutral = replace(params, **{other.stage: getattr(SamplingParams, other.stage)})
        drawn = next(iter(Decoding(prefix, neutral, seed=seed)))
        assert drawn.token_id == other.token_id


def test_the_sentence_and_the_summary_tell_what_each_setting_did(lm):
    run = decodecli.generate(
        lm, "Once upon a time", seed=3, temperature=1.6, top_p=0.9, max_new_tokens=25, explain=True
    )
    effects = Effects()
    for step in run:
        effects.add(step)
        without = {o.stage: o for o in step.explain.without}
        changed = without["temperature"].token_id != step.token_id
        assert ("at T=1 it would have been" in step.sentence) == changed
        changed = without["top_p"].token_id != step.token_id
        assert ("without top-p it would have been" in step.sentence) == changed
        assert ("over" in step.sentence) == (step.token_id != step.explain.top_id)
    assert effects.steps == 25
    text = str(run)
    for stage in ("temperature", "top_p"):
        times = sum(
            o.token_id != step.token_id
            for step in run
            for o in step.explain.without
            if o.stage == stage
        )
        assert times
        assert f"{stage.replace('_', '-')} changed the token at {times} of 25 steps" in text


def test_settings_that_changed_nothing_are_told_why(lm):
    run = decodecli.generate(
        lm, "Once upon a time", seed=3, temperature=1.6, top_k=1, max_new_tokens=3, explain=True
    )
    assert "temperature changed nothing here: top-k kept one token" in str(run)
    assert "it was the only one left" in run[0].sentence
    run = decodecli.generate(lm, "Once", seed=3, temperature=0, max_new_tokens=2, explain=True)
    assert "greedy took it" in run[0].sentence
    everything = lm.info.vocab_size
    run = decodecli.generate(lm, "Once", seed=3, top_k=everything, max_new_tokens=2, explain=True)
    assert "top-k removed nothing" in str(run)
    assert decodecli.generate(lm, "Once", max_new_tokens=1)[0].sentence == ""
