"""Beams: ids and scores are those of transformers' `generate`, the oracle."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import decodecli
from decodecli.decoding.beam_search import BeamSearch
from decodecli.decoding.prompt import prefill
from decodecli.errors import UsageError
from decodecli.settings import BeamParams, SamplingParams

EXAMPLES = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
BEAMS = st.fixed_dictionaries(
    {
        "num_beams": st.integers(2, 8),
        "length_penalty": st.sampled_from([1.0, 1.0, 0.0, -1.0, 0.6, 2.0]),
        "early_stopping": st.sampled_from(["false", "true", "never"]),
    }
)
PENALTIES = st.fixed_dictionaries(
    {"max_new_tokens": st.sampled_from([1, 2, 7, 12])},
    optional={
        "repetition_penalty": st.sampled_from([1.3]),
        "no_repeat_ngram_size": st.sampled_from([2]),
        "min_new_tokens": st.sampled_from([4]),
    },
)
SAMPLING = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.5, 1.0, 1.7])},
    optional={
        "top_k": st.sampled_from([1, 5, 40]),
        "top_p": st.sampled_from([0.3, 0.9]),
        "min_p": st.sampled_from([0.1]),
        "typical_p": st.sampled_from([0.4]),
        "epsilon_cutoff": st.sampled_from([0.02]),
        "eta_cutoff": st.sampled_from([0.02]),
    },
)
EOS = st.sampled_from([[2], [2, 5, 9, 13, 270, 300]])


def oracle(model, ids, params, beams, eos, returned):
    options = {k: v for k, v in params.items() if k not in ("max_new_tokens", "seed")}
    if not beams.get("beam_sample"):
        options = {
            k: v
            for k, v in options.items()
            if k in ("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens")
        }
    else:
        options.setdefault("top_k", 0)
    early = {"false": False, "true": True, "never": "never"}[beams["early_stopping"]]
    transformers.set_seed(params.get("seed", 0))
    output = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=params["max_new_tokens"], do_sample=bool(beams.get("beam_sample")),
        num_beams=beams["num_beams"], length_penalty=beams["length_penalty"], early_stopping=early,
        num_return_sequences=returned, eos_token_id=eos, pad_token_id=0, output_scores=True,
        return_dict_in_generate=True, **options,
    )  # fmt: skip
    texts = []
    for row in output.sequences.tolist():
        row = row[len(ids) :]
        end = next((k + 1 for k, token in enumerate(row) if token in eos), len(row))
        texts.append(tuple(row[:end]))
    return texts, output.sequences_scores.tolist()


def check(lm, model, ids, params, beams, eos):
    object.__setattr__(lm, "eos_ids", frozenset(eos))
    returned = beams["num_beams"]
    search = BeamSearch(
        prefill(lm, ids), SamplingParams(**params),
        BeamParams(**beams, num_return_sequences=returned), seed=params.get("seed", 0),
    )  # fmt: skip
    run = search.run()
    texts, scores = oracle(model, ids, params, beams, eos, returned)
    ours = [hypothesis.token_ids for hypothesis in run.hypotheses]
    mine = [hypothesis.score for hypothesis in run.hypotheses]
    # A negative length penalty multiplies the sum, and with it the rounding of every step.
    near = 1e-5 * max(1.0, params["max_new_tokens"] ** -beams["length_penalty"])
    assert mine == pytest.approx(scores[: len(mine)], abs=near, rel=2e-6)
    for left, right, score in zip(ours, texts, mine, strict=False):
        if left != right:  # equal to the last bits, and in another order
            assert sum(abs(score - s) < near + 2e-6 * abs(s) for s in scores) > 1
    return run


@pytest.fixture
def same_eos():
    changed = []

    def of(lm):
        changed.append((lm, lm.eos_ids))
        return lm

    yield of
    for lm, eos in reversed(changed):  # the first is what it had
        object.__setattr__(lm, "eos_ids", eos)


@EXAMPLES
@given(beams=BEAMS, params=PENALTIES, eos=EOS)
def test_beams_are_those_of_generate_on_every_architecture(tiny_lm, same_eos, beams, params, eos):
    check(same_eos(tiny_lm), tiny_lm.model, [1, 5, 6, 5], params, beams, eos)


@EXAMPLES
@given(beams=BEAMS, params=PENALTIES, drawn=SAMPLING, eos=EOS, seed=st.integers(0, 2**32 - 1))
def test_sampled_beams_are_those_of_generate(tiny_lm, same_eos, beams, params, drawn, eos, seed):
    params, beams = {**params, **drawn, "seed": seed}, {**beams, "beam_sample": True}
    check(same_eos(tiny_lm), tiny_lm.model, [1, 5, 6, 5], params, beams, eos)


@EXAMPLES
@given(beams=BEAMS, params=PENALTIES)
def test_beams_of_the_built_in_model_are_those_of_generate(lm, builtin_network, beams, params):
    ids = lm.codec("The capital of Japan is")["input_ids"]
    check(lm, builtin_network, ids, params, beams, sorted(lm.eos_ids))


@pytest.fixture(scope="module")
def builtin_network():
    return decodecli.load("builtin", device="cpu", dtype="float32", loader="transformers").model


def test_a_step_says_who_goes_on_who_ended_and_who_was_pruned(lm):
    search = BeamSearch(prefill(lm, "The capital of Japan is"), SamplingParams(max_new_tokens=12),
                        BeamParams(num_beams=3, num_return_sequences=3))  # fmt: skip
    run = search.run()
    texts = {0: ()}  # of the live beams
    for step in run:
        assert len(step.live) == 3 or step.index + 1 == len(run)
        assert [row.beam for row in step.live] == list(range(len(step.live)))
        following = {}
        for row in step.continuations:
            assert row.parent in texts or step.index == 0
            text = (*texts.get(row.parent, ()), row.token_id)
            assert row.normalized == pytest.approx(row.score / len(text), rel=1e-5)
            if row.beam is not None:
                following[row.beam] = text
            if row.fate == "finished":
                assert row.token_id in lm.eos_ids or step.index == 11
        texts = following or texts
    first = run.hypotheses[0]
    assert run.text == first.text
    assert run.summary.token_ids == first.token_ids
    assert first.score == max(h.score for h in run.hypotheses)
    assert first.mean_logprob == pytest.approx(first.score, abs=1e-4)  # nothing but the model
    assert run.summary.mean_logprob == pytest.approx(first.mean_logprob)
    again = decodecli.generate(lm, "The capital of Japan is", temperature=0, max_new_tokens=1)
    assert run[0].continuations[0].logprob == pytest.approx(again[0].logprob, abs=1e-5)


def test_an_interrupted_search_has_the_best_beam_so_far(lm):
    search = BeamSearch(prefill(lm, "Once upon a time"), SamplingParams(), BeamParams(num_beams=2))
    for step in search:
        if step.index == 4:
            search.interrupt()
    (best,) = search.hypotheses
    assert (len(best.token_ids), best.finish_reason) == (5, "interrupted")
    assert search.summary().finish_reason == "interrupted"


def test_one_beam_is_greedy(lm):
    params = SamplingParams(max_new_tokens=15, temperature=0)
    search = BeamSearch(prefill(lm, "Once upon a time"), params, BeamParams(num_beams=1))
    greedy = decodecli.generate(lm, "Once upon a time", params)
    assert search.run().summary.token_ids == greedy.summary.token_ids


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stop": ("x",)}, "--stop does not go with beams"),
        ({"mirostat": 2}, "--mirostat does not go"),
        ({"xtc_probability": 0.5}, "--xtc-probability does not go"),
    ],
)
def test_what_belongs_to_one_sequence_is_refused(lm, values, words):
    with pytest.raises(UsageError, match=words):
        BeamSearch(prefill(lm, "Once"), SamplingParams(**values), BeamParams(num_beams=2))


def test_as_many_beams_as_tokens_fit_and_returned_ones_are_at_most_as_many(llama_lm):
    count = llama_lm.info.vocab_size
    search = BeamSearch(prefill(llama_lm, [1]), SamplingParams(), BeamParams(num_beams=count))
    assert next(iter(search)).continuations
    with pytest.raises(UsageError, match="are more than"):
        BeamParams(num_beams=2, num_return_sequences=3)
    with pytest.raises(UsageError, match="length-penalty"):
        BeamParams(length_penalty=math.inf)
