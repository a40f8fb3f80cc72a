"""Draws of many rows at once: the tokens that each row's sampler draws, or a warning."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decodecli.sampling.batched import BatchedSampler
from decodecli.sampling.chain import Chain
from decodecli.sampling.sampler import Sampler
from decodecli.settings import SamplingParams

TOLERANCE = 5e-5
VOCAB = 600

PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1e-3, 0.2, 0.7, 1.0, 1.4, 3.0, 20.0, 100.0]),
    top_k=st.sampled_from([0, 0, 1, 5, 40, 127, 128, 590, 1000]),
    top_p=st.sampled_from([1.0, 1.0, 0.1, 0.5, 0.9, 0.999]),
    min_p=st.sampled_from([0.0, 0.0, 1e-4, 0.05, 0.5, 1.0]),
    repetition_penalty=st.just(1.0),
    seed=st.integers(0, 2**32 - 1),
)


def sampler(params: SamplingParams, tolerance: float = TOLERANCE, count: int = 0) -> Sampler:
    return Sampler(Chain(params), count, str, params.seed or 0, tolerance=tolerance)


def some_logits(rows: int, spread: float, seed: int, vocab: int = VOCAB) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


@settings(max_examples=150, deadline=None)
@given(
    st.lists(PARAMS, min_size=1, max_size=6),
    st.sampled_from([0.1, 1.0, 4.0]),
    st.integers(0, 2**31),
)
def test_rows_draw_what_their_samplers_draw_alone(params, spread, seed) -> None:
    together = [sampler(p) for p in params]
    alone = [sampler(p) for p in params]
    draws = BatchedSampler()
    for step in range(4):
        logits = some_logits(len(params), spread, seed + step)
        for row, drawn in enumerate(draws(together, logits)):
            chosen, seen = alone[row](logits[row : row + 1])
            if drawn is None:  # its sampler must do it, with noise that is still unused
                chosen_there, _ = together[row](logits[row : row + 1])
                assert torch.equal(chosen, chosen_there)
                continue
            if not drawn.ambiguous:
                assert drawn.token_id == int(chosen)
                assert drawn.logprob == pytest.approx(seen.logprob, rel=1e-4, abs=1e-5)
            assert drawn.entropy == pytest.approx(seen.entropy, rel=1e-4, abs=1e-5)


@settings(max_examples=300, deadline=None)
@given(PARAMS, st.sampled_from([0.3, 2.0]), st.integers(0, 2**31), st.booleans())
def test_a_draw_that_logits_a_little_off_turn_over_is_doubtful(params, spread, seed, tie) -> None:
    logits = some_logits(1, spread, seed)
    if tie:  # many close calls, some of them ties
        logits = (logits * 4).round() / 4 + some_logits(1, 2e-6, seed + 1) * (seed % 2)
    off = (torch.rand(1, VOCAB, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * TOLERANCE
    for one_at_a_time in (True, False):

        def draw(given: torch.Tensor, alone: bool = one_at_a_time) -> tuple[int, bool]:
            own = sampler(params)
            drawn = None if alone else BatchedSampler()([own], given)[0]
            if drawn is not None:
                return drawn.token_id, drawn.ambiguous
            chosen, _ = own(given)
            return int(chosen), own.ambiguous

        plain, doubtful = draw(logits)
        other, _ = draw(logits + off)
        assert doubtful or plain == other


@pytest.mark.parametrize(
    ("params", "first", "second"),
    [
        ({"top_k": 1}, 10.0, 10.0),  # two at the edge of top-k, one of whom goes
        ({"top_k": 1, "top_p": 0.9}, 10.0, 10.0),
        ({"top_p": 0.50001}, 10.0, 10.0 - 1e-5),  # two that change places at the edge of top-p
        ({"top_p": 0.3}, 10.0, 10.0),
        ({"min_p": 1.0}, 10.0, 10.0 - 1e-5),
        ({"temperature": 1e-8}, 10.0, 10.0 - 2e-5),
        ({"temperature": 0.0}, 10.0, 10.0 - 2e-5),
        ({"temperature": 0.0, "repetition_penalty": 3.0}, 10.0, 10.0 - 2e-5),
        ({"repetition_penalty": 1.3, "top_k": 1}, 10.0, 10.0),
        ({"no_repeat_ngram_size": 2, "top_p": 0.3}, 10.0, 10.0),
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_two_tokens_that_change_places_at_an_edge_are_doubtful(
    params, first, second, shared
) -> None:
    ids = torch.tensor([[7, 8, 9]])
    for seed in range(60):
        logits = some_logits(1, 0.1, seed) - 20
        logits[0, 3], logits[0, 5] = first, second
        other = logits.clone()
        other[0, 5] += 0.9 * TOLERANCE
        found = []
        for seen in (logits, other):
            own = sampler(SamplingParams(**params, seed=seed))
            drawn = BatchedSampler()([own], seen)[0] if shared else None
            if drawn is not None:
                found.append((drawn.token_id, drawn.ambiguous))
            else:
                chosen, _ = own(seen, ids)
                found.append((int(chosen), own.ambiguous))
        assert found[0][1] or found[0][0] == found[1][0], seed


def test_a_clear_first_token_is_sure_whatever_the_filter_says() -> None:
    cold = {"temperature": 0.001}
    for params in ({"min_p": 1.0}, {"min_p": 0.95, **cold}, {"top_p": 0.99, **cold}):
        drawn = BatchedSampler()(
            [sampler(SamplingParams(**params, seed=0))], some_logits(1, 3.0, 0)
        )[0]
        assert drawn is not None
        assert not drawn.ambiguous


def test_large_logits_are_allowed_to_be_further_off() -> None:
    logits = some_logits(1, 1.0, 0) - 500
    logits[0, 3], logits[0, 5] = -400.0, -400.0005  # 1e-6 of their size apart
    drawn = BatchedSampler()([sampler(SamplingParams(temperature=0, seed=0))], logits)[0]
    assert drawn is not None
    assert drawn.ambiguous


def test_few_draws_are_doubtful() -> None:
    params = SamplingParams(temperature=0.9, top_p=0.9, top_k=50)
    own, draws = [sampler(params) for _ in range(16)], BatchedSampler()
    found = [
        drawn
        for step in range(100)
        for drawn in draws(own, some_logits(16, 3.0, step))
        if drawn is not None
    ]
    assert len(found) > 1500  # the first step looks at too few for a top-k of 50
    assert sum(drawn.ambiguous for drawn in found) < 16


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(repetition_penalty=1.2, seed=0),
        SamplingParams(typical_p=0.9, seed=0),
        SamplingParams(top_k=200, seed=0),
    ],
)
def test_what_is_not_written_out_is_left_to_the_sampler(params) -> None:
    assert BatchedSampler()([sampler(params)], some_logits(1, 1.0, 0)) == [None]


def test_a_large_vocabulary_and_no_tolerance_are_left_to_the_sampler() -> None:
    params = SamplingParams(seed=0)
    assert BatchedSampler()([sampler(params)], some_logits(1, 1.0, 0, vocab=40_000)) == [None]
    assert BatchedSampler()([sampler(params, tolerance=0.0)], some_logits(1, 1.0, 0)) == [None]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_left_to_the_sampler_and_the_others_are_drawn(bad) -> None:
    params = SamplingParams(seed=0)
    logits = some_logits(2, 1.0, 0)
    logits[0, 5] = bad
    first, second = BatchedSampler()([sampler(params), sampler(params)], logits)
    assert first is None
    assert second is not None


@pytest.mark.parametrize("name", ["typical_p", "epsilon_cutoff", "eta_cutoff", "top_nsigma"])
def test_the_stages_notice_a_doubtful_draw_too(name) -> None:
    value = {"typical_p": 0.95, "epsilon_cutoff": 1e-4, "eta_cutoff": 1e-4, "top_nsigma": 3}[name]
    own = sampler(SamplingParams(**{name: value}, seed=3))
    logits = some_logits(1, 1.0, 0)
    chosen, _ = own(logits)
    assert not own.ambiguous
    own = sampler(SamplingParams(**{name: value}, seed=3))
    noise = torch.empty(1, VOCAB).exponential_(1, generator=torch.Generator().manual_seed(3))
    rival = (int(chosen) + 1) % VOCAB
    # The same weight over noise as the one drawn, to within the tolerance.
    logits[0, rival] = logits[0, int(chosen)] + torch.log(noise[0, rival] / noise[0, int(chosen)])
    own(logits)
    assert own.ambiguous
