"""The methods of papers and other engines against their float64 definitions, and orders of stages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import decodecli
from decodecli.decoding.prompt import run_context
from decodecli.errors import UsageError
from decodecli.sampling import processors, reference
from decodecli.sampling.chain import Chain, RunContext
from decodecli.sampling.sampler import Sampler
from decodecli.settings import SamplingParams
from decodecli.stages import ORDER, ORDERS, stage_order

LN2 = math.log(2)
# Stage → values, what the processor takes after the scores, and the definition; values far from any
# probability of the rows below, so that rounding decides nothing.
FILTERS = {
    "top_h": (st.floats(0.05, 0.95), lambda v: (v,), reference.beyond_top_h),
    "top_a": (st.floats(0.01, 1), lambda v: (v,), reference.below_top_a),
    "tfs_z": (st.floats(0.05, 0.99), lambda v: (v,), reference.beyond_tfs_z),
    "xtc_probability": (st.floats(0.005, 0.4), lambda v: (True, v), reference.excluded_by_xtc),
    "mirostat": (st.floats(0.1, 12), lambda v: (v,), reference.beyond_mirostat),
}


@st.composite
def rows(draw, vocab=60):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(2, vocab, generator=generator, dtype=torch.float64)
    values *= draw(st.sampled_from([0.3, 1.0, 4.0]))
    if draw(st.booleans()):
        values[:, : vocab // 3] = -torch.inf  # removed by an earlier stage
    return values


@pytest.mark.parametrize("name", FILTERS)
@settings(max_examples=100, deadline=None)
@given(data=st.data(), values=rows())
def test_a_filter_is_its_definition_and_commutes_with_the_order_of_tokens(name, data, values):
    choices, inputs, definition = FILTERS[name]
    value = data.draw(choices)
    removed = getattr(processors, name)(values, *inputs(value))
    for row, mask in zip(values.numpy(), removed, strict=True):
        possible = np.isfinite(row)
        exact = definition(reference.log_softmax(row), value)
        assert np.array_equal(mask.numpy()[possible], exact[possible])
        assert not mask.numpy()[possible].all()
    order = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(1))
    permuted = getattr(processors, name)(values[:, order], *inputs(value))
    possible = values.isfinite()
    assert torch.equal(permuted & possible[:, order], (removed & possible)[:, order])


@settings(max_examples=60, deadline=None)
@given(values=rows(vocab=150), share=st.sampled_from([0.05, 0.4, 1.0]))
def test_top_h_removes_what_transformers_removes(values, share):
    values = values.float().nan_to_num(neginf=-1e4)
    theirs = transformers.TopHLogitsWarper(share)(torch.zeros(2, 1, dtype=torch.long), values)
    ours = values.masked_fill(processors.top_h(values, share), -torch.inf)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["top_k", "min_p"])
@settings(max_examples=60, deadline=None)
@given(values=rows(), value=st.floats(0.01, 1))
def test_a_filter_that_is_idempotent_removes_nothing_more(name, values, value):
    value = max(1, round(value * 30)) if name == "top_k" else value
    once = values.masked_fill(getattr(processors, name)(values, value), -torch.inf)
    again = once.masked_fill(getattr(processors, name)(once, value), -torch.inf)
    assert torch.equal(once, again)


def test_tail_free_cuts_where_llama_cpps_own_test_cuts():
    probabilities = torch.tensor([[0.1, 0.15, 0.2, 0.25, 0.3]])
    for z, kept in ((0.25, [0.3]), (0.75, [0.3, 0.25]), (0.99, [0.3, 0.25])):
        removed = processors.tfs_z(probabilities.log(), z)
        assert sorted(probabilities[~removed].tolist(), reverse=True) == pytest.approx(kept)


def test_xtc_keeps_the_least_probable_of_the_top_choices():
    scores = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    for threshold, removed in ((0.09, 3), (0.19, 2), (0.29, 1), (0.39, 0)):
        assert int(processors.xtc_probability(scores, True, threshold).sum()) == removed
    assert not processors.xtc_probability(scores, False, 0.09).any()


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    penalty=st.floats(-2, 2),
    last=st.integers(-1, 40),
)
def test_presence_and_frequency_count_the_tokens_of_the_window(ids, penalty, last):
    scores = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    window = ids if last < 0 else ids[len(ids) - min(last, len(ids)) :]
    counts = np.bincount(window, minlength=8) if window else np.zeros(8)
    for name, times in (("presence_penalty", counts > 0), ("frequency_penalty", counts)):
        params = SamplingParams(**{name: penalty}, penalty_last_n=last)
        processed = Chain(params)(scores, torch.tensor([ids]))
        exact = scores[0].double().numpy() - penalty * times
        assert np.allclose(processed.scores[0].numpy(), exact, atol=1e-5)
        assert torch.equal(processed.penalised, processed.scores)


def repetition_by_definition(tokens, candidate, breakers):
    """The longest text before an earlier `candidate` that is also the end, without breakers."""
    best = 0
    for position in range(1, len(tokens)):
        if tokens[position] == candidate:
            length = 0
            while (
                length < position
                and tokens[position - 1 - length] == tokens[-1 - length]
                and tokens[-1 - length] not in breakers
            ):
                length += 1
            best = max(best, length)
    return best


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    breakers=st.sets(st.integers(0, 3), max_size=1),
    allowed=st.integers(1, 4),
)
def test_dry_penalises_what_would_extend_a_repetition(tokens, breakers, allowed):
    scores = processors.dry_multiplier(
        torch.zeros(1, 5), torch.tensor([tokens]), 0.8, 1.75, allowed, breakers.__contains__
    )
    for token in range(5):
        length = repetition_by_definition(tokens, token, breakers)
        exact = 0.8 * 1.75 ** (length - allowed) if length >= allowed else 0.0
        assert float(scores[0, token]) == pytest.approx(-exact, rel=1e-5)


def test_dry_of_a_long_repetition_stays_finite():
    tokens = torch.zeros(1, 4000, dtype=torch.long)
    params = SamplingParams(dry_multiplier=5)
    assert Chain(params)(torch.zeros(1, 9), tokens).scores.isfinite().all()


@settings(max_examples=60, deadline=None)
@given(
    values=rows(),
    middle=st.floats(0.2, 2),
    extent=st.floats(0.01, 2),
    exponent=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_the_dynamic_temperature_follows_the_entropy(values, middle, extent, exponent):
    params = SamplingParams(temperature=middle, dynatemp_range=extent, dynatemp_exponent=exponent)
    processed = Chain(params)(values, None)
    for row, scores in zip(values.numpy(), processed.scores.numpy(), strict=True):
        exact = reference.dynamic_temperature(row, middle, extent, exponent)
        expected = np.exp(reference.log_softmax(row, max(exact, 1e-4)))
        assert np.allclose(np.exp(reference.log_softmax(scores)), expected, atol=1e-6)


def test_mirostat_learns_from_every_draw_and_begins_anew_with_a_run():
    params = SamplingParams(mirostat=2, mirostat_tau=3, mirostat_eta=0.5, seed=4)
    chain = Chain(params)
    for _ in range(2):
        sampler, limit = Sampler(chain, 5, str, 4), 6.0
        for step in range(20):
            logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(step)) * 2
            assert chain.max_surprise == pytest.approx(limit, abs=1e-4)
            token, _ = sampler(logits, torch.zeros(1, 1, dtype=torch.long))
            logprobs = reference.log_softmax(logits[0].numpy())
            removed = reference.beyond_mirostat(logprobs, limit)
            left = reference.log_softmax(np.where(removed, -np.inf, logprobs))
            assert not removed[int(token)]
            limit = reference.next_max_surprise(limit, left[int(token)], 3, 0.5)


def test_xtc_strikes_in_its_share_of_steps_by_seed_and_position_alone():
    params = SamplingParams(xtc_probability=0.3, xtc_threshold=0.01)
    logits = torch.arange(5.0)[None]
    struck = []
    for length in range(2000):
        ids = torch.zeros(1, length, dtype=torch.long)
        chain = Chain(params, context=RunContext(seed=9))
        struck.append(bool(chain(logits, ids).removed_by.any()))
        assert struck[-1] == bool(chain(logits, ids).removed_by.any())
    assert 0.26 < np.mean(struck) < 0.34


def test_biases_bad_words_and_the_least_length_equal_those_of_transformers():
    scores = torch.randn(1, 40, generator=torch.Generator().manual_seed(2))
    context = RunContext(
        prompt_length=3,
        eos_ids=(0, 7),
        logit_bias=((5, 2.5), (6, -1.0)),
        bad_words=((9,), (1, 2, 8)),
    )
    params = SamplingParams(logit_bias=("5=2.5",), bad_words=("x",), min_new_tokens=2)
    bias = transformers.SequenceBiasLogitsProcessor({(5,): 2.5, (6,): -1.0})
    bad = transformers.NoBadWordsLogitsProcessor([[9], [1, 2, 8]], eos_token_id=None)
    least = transformers.MinNewTokensLengthLogitsProcessor(3, 2, [0, 7], device="cpu")
    for ids in ([3, 1, 2], [3, 3, 3, 1, 2], [3, 1, 2, 2]):
        history = torch.tensor([ids])
        theirs = least(history, bad(history, bias(history, scores.clone())))
        assert torch.equal(Chain(params, context=context)(scores, history).scores, theirs)


@pytest.fixture(scope="module")
def lm():
    return decodecli.load("builtin", device="cpu", dtype="float32", quantize="none")


def test_texts_become_the_token_ids_of_the_model(lm):
    params = SamplingParams(
        logit_bias={",": 2.0, 7: -1.5, "text:7": 1.0}, bad_words=("dragon", " big bad wolf")
    )
    context = run_context(lm, params, (1, 2, 3), seed=5)
    (comma, added), by_id, (seven, _) = context.logit_bias
    assert (lm.piece(comma), added, by_id, lm.piece(seven)) == (",", 2.0, (7, -1.5), "7")
    assert (
        tuple(lm.codec(" big bad wolf", add_special_tokens=False)["input_ids"]) in context.bad_words
    )
    assert (context.prompt_length, context.seed) == (3, 5)
    assert set(context.eos_ids) == lm.eos_ids
    with pytest.raises(UsageError, match="tokens"):
        run_context(lm, SamplingParams(logit_bias=("abracadabra=1",)))


def test_bad_words_never_come_and_biased_tokens_do_and_the_text_is_long_enough(lm):
    plain = decodecli.generate(lm, "Once upon a time,", seed=1, max_new_tokens=40).text
    word = max((word.strip(".,") for word in plain.split()), key=plain.count)
    without = decodecli.generate(
        lm, "Once upon a time,", seed=1, max_new_tokens=40, bad_words=(word,)
    )
    assert f" {word} " in f" {plain} "
    assert f" {word} " not in f" {without.text} "
    biased = decodecli.generate(lm, "Hi", logit_bias=(",=99",), max_new_tokens=3)
    assert biased.text == ",,,"
    eos = min(lm.eos_ids)
    short = decodecli.generate(
        lm, "Hi", logit_bias=(f"{eos}=99",), min_new_tokens=4, max_new_tokens=9, seed=0
    )
    assert short.summary.new_tokens == 5
    assert short.summary.finish_reason == "stop"


def test_dry_matches_nothing_across_its_breakers(lm):
    params = SamplingParams(dry_multiplier=1)
    breaks = run_context(lm, params).breaks
    dot, colon = (lm.codec(t, add_special_tokens=False)["input_ids"][-1] for t in (".", ":"))
    assert breaks(colon)
    assert not breaks(dot)
    assert not run_context(lm, SamplingParams(dry_sequence_breakers=("none",))).breaks(colon)


def zipf(vocab=32_000, exponent=1.5):
    return -exponent * torch.arange(1, vocab + 1).double().log()[None].float()


def test_temperature_first_keeps_many_more_tokens_than_temperature_last():
    kept = {}
    for order in ORDERS:
        chain = Chain(SamplingParams(temperature=1.4, top_p=0.9, order=order))
        kept[order] = int((chain(zipf(), None).removed_by == 0).sum())
    assert kept["transformers"] == kept["vllm"]
    assert kept["llama.cpp"] == kept["mlx"]
    assert kept["transformers"] > 3 * kept["llama.cpp"]


EVERY = {
    "logit_bias": ("3=1",), "repetition_penalty": 1.2, "presence_penalty": 0.3,
    "frequency_penalty": 0.1, "dry_multiplier": 0.8, "constraint": "json",
    "no_repeat_ngram_size": 3, "bad_words": ("x",),
    "min_new_tokens": 2, "top_nsigma": 3, "dynatemp_range": 0.3, "temperature": 0.8, "top_h": 0.9,
    "top_k": 40, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.95, "epsilon_cutoff": 1e-4,
    "eta_cutoff": 1e-4, "top_a": 0.01, "tfs_z": 0.99, "xtc_probability": 1.0, "mirostat": 2,
}  # fmt: skip


def odd_tokens(ids):
    """What a constraint rules out."""
    return (torch.arange(80) % 2 == 1)[None]


@settings(max_examples=60, deadline=None)
@given(on=st.sets(st.sampled_from(ORDER)), order=st.permutations(ORDER), seed=st.integers(0, 99))
def test_any_order_of_any_stages_leaves_something_and_says_who_removed_the_rest(on, order, seed):
    logits = torch.randn(1, 80, generator=torch.Generator().manual_seed(seed)) * 3
    ids = torch.tensor([[3, 4, 3, 4, 3]])
    # A constraint behind filters may rule out all that they left.
    order = ["constraint", *(name for name in order if name != "constraint")]
    context = RunContext(5, (0,), ((3, 1.0),), ((7,), (3, 9)), odd_tokens, seed=seed)
    params = SamplingParams(**{name: EVERY[name] for name in on}, order=",".join(order))
    chain = Chain(params, context=context)
    assert list(chain.order) == [name for name in order if name in on]
    processed = chain(logits, ids)
    removed = torch.zeros_like(logits) if processed.removed_by is None else processed.removed_by
    assert torch.equal(removed != 0, processed.scores.isneginf())
    assert not (removed != 0).all()
    # What is shown is what is drawn from.
    tempered = processed.penalised.double() / chain.temperature
    shown = tempered.masked_fill(removed != 0, -torch.inf).softmax(-1)
    assert torch.allclose(shown, processed.scores.double().softmax(-1), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(on=st.sets(st.sampled_from(ORDER)), seed=st.integers(0, 99))
def test_an_order_that_lists_the_default_order_changes_nothing(on, seed):
    logits = torch.randn(1, 80, generator=torch.Generator().manual_seed(seed)) * 3
    values = {name: EVERY[name] for name in on} | {"seed": seed}
    context, steps = RunContext(5, (0,), ((3, 1.0),), ((7,), (3, 9)), odd_tokens, seed=seed), []
    for order in (
        "transformers",
        ",".join(ORDER),
        ",".join(n for n in ORDER if n in on) or "top_k",
    ):
        chain = Chain(SamplingParams(**values, order=order), context=context)
        steps.append(Sampler(chain, 10, str, seed)(logits, torch.tensor([[3, 4, 3, 4, 3]]))[1])
    assert steps[0] == steps[1] == steps[2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"order": "top_p,top_p"}, "names top_p twice"),
        ({"order": "top_q"}, "no stage or engine 'top_q'"),
        ({"order": "top_p", "top_k": 5}, "leaves out top_k"),
        ({"order": "top_p", "temperature": 0.5}, "leaves out temperature"),
        ({"order": "top_p", "temperature": 0, "top_k": 5}, "leaves out top_k"),
        ({"order": ""}, "no stage or engine ''"),
    ],
)
def test_an_order_that_makes_no_sense_is_an_error(values, message):
    with pytest.raises(UsageError, match=message):
        SamplingParams(**values)


def test_an_order_may_leave_out_what_is_off_and_greedy_needs_no_temperature():
    assert stage_order(SamplingParams(order="top-p, top_k", top_p=0.9, temperature=0)) == (
        "greedy",
    )
    assert stage_order(SamplingParams(order="top_p,top_k", top_p=0.9, top_k=3)) == (
        "top_p",
        "top_k",
    )
