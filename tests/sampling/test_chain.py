"""Each stage removes what transformers' processor of the same name removes, and the chain says which."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from decodecli.sampling import processors
from decodecli.sampling import reference as d
from decodecli.sampling.chain import Chain
from decodecli.settings import SamplingParams
from decodecli.stages import ignored_under_greedy, stage_order

PROCESSORS = {
    "top_k": (transformers.TopKLogitsWarper, [1, 2, 17, 1000]),
    "top_p": (transformers.TopPLogitsWarper, [1e-9, 0.3, 0.9, 0.999999]),
    "min_p": (transformers.MinPLogitsWarper, [0.01, 0.3, 1.0]),
    "typical_p": (transformers.TypicalLogitsWarper, [0.05, 0.5, 0.95]),
    "epsilon_cutoff": (transformers.EpsilonLogitsWarper, [1e-4, 0.01, 0.99]),
    "eta_cutoff": (transformers.EtaLogitsWarper, [1e-4, 0.01, 0.99]),
}


@st.composite
def scores(draw, vocab: int = 120):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = draw(st.integers(1, 3))
    values = torch.randn(rows, vocab, generator=generator) * draw(
        st.sampled_from([0.0, 0.5, 3, 50])
    )
    if draw(st.booleans()):
        values = values.round()  # many ties
    if draw(st.booleans()):
        values[:, : vocab // 3] = -torch.inf  # removed by an earlier stage
    return values


@pytest.mark.parametrize("name", PROCESSORS)
@settings(max_examples=60, deadline=None)
@given(values=scores(), data=st.data())
def test_a_filter_removes_exactly_what_transformers_removes(name, values, data):
    processor, choices = PROCESSORS[name]
    value = data.draw(st.sampled_from(choices))
    theirs = processor(value)(torch.zeros(len(values), 1, dtype=torch.long), values.clone())
    ours = values.masked_fill(getattr(processors, name)(values, value), -torch.inf)
    assert torch.equal(ours, theirs)


@settings(max_examples=60, deadline=None)
@given(values=scores(), penalty=st.sampled_from([0.5, 1.2, 3.0]), data=st.data())
def test_the_penalties_equal_those_of_transformers(values, penalty, data):
    rows, vocab = values.shape
    length = data.draw(st.integers(1, 12))
    tokens = st.lists(st.integers(0, min(vocab - 1, 5)), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(tokens) for _ in range(rows)])
    theirs = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids, values.clone())
    assert torch.equal(processors.repetition_penalty(values, ids, penalty), theirs)
    for size in (1, 2, 3):
        theirs = transformers.NoRepeatNGramLogitsProcessor(size)(ids, values.clone())
        mask = processors.no_repeat_ngram_size(values, ids, size)
        assert torch.equal(values.masked_fill(mask, -torch.inf), theirs)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    p=st.floats(0.01, 0.99),
    k=st.integers(1, 60),
    share=st.floats(0.001, 1),
)
def test_filters_agree_with_their_definitions_in_float64(seed, p, k, share):
    values = torch.randn(1, 50, generator=torch.Generator().manual_seed(seed)).double() * 2
    logprobs = d.log_softmax(values[0].numpy())
    assert np.array_equal(processors.top_p(values, p)[0].numpy(), d.beyond_top_p(logprobs, p))
    assert np.array_equal(
        processors.top_k(values, k)[0].numpy(), d.beyond_top_k(values[0].numpy(), k)
    )
    assert np.array_equal(
        processors.min_p(values, share)[0].numpy(), d.below_min_p(logprobs, share)
    )


def far_from_the_edge(values, n):
    """Which scores no rounding in float32 moves across the edge of top-nσ."""
    exact = values.double().numpy()
    edges = [[row.max() - n * row[np.isfinite(row)].std()] for row in exact]
    return torch.from_numpy(~(np.abs(exact - np.array(edges)) <= 1e-5 * (1 + np.abs(exact))))


@settings(max_examples=200, deadline=None)
@given(values=scores(), n=st.floats(1e-3, 6), seed=st.integers(0, 2**31))
def test_top_nsigma_is_its_definition_whatever_the_temperature_and_the_order_of_tokens(
    values, n, seed
):
    clear = far_from_the_edge(values, n)
    removed = processors.top_nsigma(values, n)
    exact = torch.tensor(np.array([d.below_top_nsigma(row, n) for row in values.double().numpy()]))
    assert torch.equal(removed[clear], exact[clear])
    for temperature in (0.01, 0.7, 30.0):
        tempered = processors.top_nsigma(values / temperature, n)
        assert torch.equal(tempered[clear], removed[clear])
    order = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(seed))
    permuted = processors.top_nsigma(values[:, order], n)
    assert torch.equal(permuted[clear[:, order]], removed[:, order][clear[:, order]])


@settings(max_examples=100, deadline=None)
@given(values=scores(), n=st.floats(1e-9, 6))
def test_top_nsigma_keeps_the_highest_and_more_with_a_larger_n_and_less_when_repeated(values, n):
    removed = processors.top_nsigma(values, n)
    assert not removed[values == values.amax(-1, keepdim=True)].any()
    assert not (processors.top_nsigma(values, n * 1.5) & ~removed).any()
    again = processors.top_nsigma(values.masked_fill(removed, -torch.inf), n)
    assert not (removed & ~again).any()


def test_top_nsigma_is_not_idempotent_and_leaves_a_row_of_equals_alone():
    values = torch.tensor([[3.0, 2.0, 1.0, 0.0]])  # deviates by 1.118, the two left by 0.5
    assert processors.top_nsigma(values, 1).tolist() == [[False, False, True, True]]
    values[0, 2:] = -torch.inf
    assert processors.top_nsigma(values, 1).tolist() == [[False, True, True, True]]
    assert not processors.top_nsigma(torch.full((2, 9), 0.1), 1e-9).any()


@settings(max_examples=60, deadline=None)
@given(values=scores(), temperature=st.sampled_from([1e-30, 0.3, 1.7, 1e30]))
def test_what_top_nsigma_removes_in_the_chain_is_the_same_at_every_temperature(values, temperature):
    removed = Chain(SamplingParams(top_nsigma=1, temperature=temperature))(values, None).removed_by
    alone = Chain(SamplingParams(top_nsigma=1))(values, None).removed_by
    assert torch.equal(removed, alone)


def penalise_repetition(logits, ids, penalty):
    """Logits of the tokens in `ids` divided by the penalty if positive, else multiplied."""
    present = np.unique(ids)
    values = logits[present]
    logits = logits.copy()
    logits[present] = np.where(values < 0, values * penalty, values / penalty)
    return logits


def repeated_ngram(vocab, ids, size):
    """True for the tokens that would complete an n-gram of `size` tokens already in `ids`."""
    removed = np.zeros(vocab, dtype=np.bool_)
    suffix = ids[len(ids) - size + 1 :]
    for start in range(len(ids) - size + 1):
        if ids[start : start + size - 1] == suffix:
            removed[ids[start + size - 1]] = True
    return removed


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    ids=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    penalty=st.sampled_from([0.5, 1.3]),
    size=st.integers(1, 3),
)
def test_penalties_agree_with_their_definitions_in_float64(seed, ids, penalty, size):
    values = torch.randn(1, 20, generator=torch.Generator().manual_seed(seed)).double() * 2
    history = torch.tensor([ids])
    penalised = processors.repetition_penalty(values, history, penalty)[0].numpy()
    assert np.array_equal(penalised, penalise_repetition(values[0].numpy(), ids, penalty))
    banned = processors.no_repeat_ngram_size(values, history, size)[0].numpy()
    assert np.array_equal(banned, repeated_ngram(20, ids, size))


def test_stages_apply_in_transformers_order_and_neutral_ones_are_left_out():
    every = SamplingParams(
        top_nsigma=1, eta_cutoff=0.1, epsilon_cutoff=0.1, typical_p=0.9, min_p=0.1, top_p=0.9, top_k=5,
        temperature=0.7, no_repeat_ngram_size=2, repetition_penalty=1.1,
    )  # fmt: skip
    assert stage_order(every) == (
        "repetition_penalty", "no_repeat_ngram_size", "top_nsigma", "temperature", "top_k", "top_p",
        "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    )  # fmt: skip
    assert stage_order(SamplingParams()) == ()


def test_greedy_runs_the_penalties_and_no_filter():
    params = SamplingParams(temperature=0, top_p=0.5, repetition_penalty=1.2)
    assert stage_order(params) == ("repetition_penalty", "greedy")
    assert ignored_under_greedy(params) == ("top_p",)


def test_the_first_stage_that_removed_a_token_is_remembered():
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0]])
    chain = Chain(SamplingParams(no_repeat_ngram_size=1, top_k=2, top_p=0.6))
    filtered = chain(logits, torch.tensor([[0]]))
    names = [
        None if code == 0 else chain.order[code - 1] for code in filtered.removed_by[0].tolist()
    ]
    assert names == ["no_repeat_ngram_size", None, "top_p", "top_k", "top_k"]
