"""The quick way gives what the stages give: the same token, the same rows, the same numbers."""

from __future__ import annotations

import math
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodecli.errors import DecodeError
from decodecli.records.run import Step
from decodecli.sampling import noise as noise_module
from decodecli.sampling.chain import Chain
from decodecli.sampling.noise import ExponentialNoise
from decodecli.sampling.sampler import Head, Sampler
from decodecli.sampling.statistics import highest_ids
from decodecli.settings import SamplingParams

CPU = torch.device("cpu")


def logits_like_a_models(vocab: int, spread: float, peak: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, vocab, generator=generator) * spread
    logits[0, int(torch.randint(vocab, (1,), generator=generator))] += peak
    return logits


def both(chain: Chain, logits: torch.Tensor, count: int, seed: int, steps: int = 1):
    """What a sampler says of each step, and what it says when it must ask the processors."""
    quick, slow = (Sampler(chain, count, str, seed) for _ in range(2))
    slow._fast = False
    return [(quick(logits)[1], slow(logits)[1]) for _ in range(steps)]


def check_same(ours: Step, theirs: Step) -> None:
    def close(a: float | None, b: float | None) -> bool:
        if a is None or b is None:
            return a is b
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5)

    assert (ours.token_id, ours.rank, ours.kept) == (theirs.token_id, theirs.rank, theirs.kept)
    for name in ("logprob", "tempered_logprob", "final_logprob", "entropy", "final_entropy"):
        assert close(getattr(ours, name), getattr(theirs, name)), name
    assert len(ours.candidates) == len(theirs.candidates)
    for mine, other in zip(ours.candidates, theirs.candidates, strict=True):
        for name in ("rank", "token_id", "token", "logit", "removed_by"):
            assert getattr(mine, name) == getattr(other, name), name
        for name in ("logprob", "tempered_logprob", "cumulative", "final_logprob"):
            assert close(getattr(mine, name), getattr(other, name)), name


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    vocab=st.sampled_from([3, 40, 300, 4096]),
    spread=st.sampled_from([0.01, 1.0, 3.0, 10.0]),
    peak=st.sampled_from([0.0, 5.0, 30.0]),
    temperature=st.sampled_from([0.0, 0.001, 0.3, 0.8, 1.0, 1.4, 20.0]),
    top_k=st.sampled_from([0, 0, 1, 5, 50, 5000]),
    top_p=st.sampled_from([1.0, 1e-9, 0.1, 0.5, 0.9, 0.999]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.9, 1.0]),
    count=st.sampled_from([0, 1, 10, 200]),
    coarse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_quick_way_gives_what_the_stages_give(
    vocab, spread, peak, temperature, top_k, top_p, min_p, count, coarse, seed
):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = logits_like_a_models(vocab, spread, peak, seed)
    if coarse:  # many equal logits
        logits = logits.to(torch.bfloat16).float()
    for ours, theirs in both(Chain(params), logits, count, seed, steps=2):
        check_same(ours, theirs)


@pytest.mark.parametrize("vocab", [32_000, 128_256])
@pytest.mark.parametrize(
    "filters", [{"top_k": 50}, {"top_k": 50, "top_p": 0.9}, {"top_p": 0.9}, {"min_p": 0.05}, {}]
)
def test_a_large_vocabulary_gives_the_same_over_many_steps(vocab, filters):
    chain = Chain(SamplingParams(temperature=0.8, **filters))
    for ours, theirs in both(chain, logits_like_a_models(vocab, 3, 9, 5), 10, 4, steps=8):
        check_same(ours, theirs)


def test_the_quick_way_is_taken_where_it_should_be(monkeypatch):
    asked = []
    launch = Sampler.launch

    def counted(self, *inputs):
        asked.append(self.chain.order)
        return launch(self, *inputs)

    monkeypatch.setattr(Sampler, "launch", counted)
    logits = logits_like_a_models(32_000, 3, 9, 5)
    for quick in ({"top_k": 50, "top_p": 0.9}, {"top_p": 0.9}, {"min_p": 0.05}, {"temperature": 0}):
        Sampler(Chain(SamplingParams(**quick)), 10, str, 0)(logits)
    assert asked == []
    for slow in (
        {"typical_p": 0.9},
        {"top_nsigma": 1.0},
        {"repetition_penalty": 1.2},
        {"top_p": 0.9, "eta_cutoff": 0.1},
    ):
        Sampler(Chain(SamplingParams(**slow)), 10, str, 0)(logits, torch.tensor([[7, 8]]))
    assert len(asked) == 4


def test_of_equal_16_bit_logits_at_the_edge_of_top_p_the_lower_ids_are_kept():
    logits = torch.tensor([[4.0, 0.0, 1.0, 1.0, 1.0, 1.0, -9.0]])
    chain = Chain(SamplingParams(top_p=0.88))
    seen = Sampler(chain, 7, str, 0, exact_ties=False)(logits)[1]
    assert [row.token_id for row in seen.candidates if row.removed_by is None] == [0, 2, 3]
    assert seen.kept == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9}, {"temperature": 0}])
def test_logits_that_are_not_finite_are_noticed(bad, filters):
    logits = torch.zeros(1, 500)
    logits[0, 17] = bad
    with pytest.raises(DecodeError, match="step 3"):
        Sampler(Chain(SamplingParams(**filters)), 10, str, 0)(logits, None, 3)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("vocab", [500, 20_000, 70_000])
def test_noise_is_that_of_torchs_generator_all_of_it_or_some(seed, vocab):
    generator = torch.Generator().manual_seed(seed)
    noise = ExponentialNoise(seed, vocab, CPU)
    for step in range(4):
        expected = torch.empty(1, vocab).exponential_(1, generator=generator)
        if step % 2:
            assert torch.equal(noise.full(), expected)
        else:
            ids = np.array([3, 499, 0])
            assert (noise.gather(ids) == expected[0, ids].numpy()).all()


def test_where_bits_give_other_noise_torch_makes_it(monkeypatch):
    monkeypatch.setattr(noise_module, "_bits_match_torch", lambda: False)
    expected = torch.empty(1, 20_000).exponential_(1, generator=torch.Generator().manual_seed(5))
    assert torch.equal(ExponentialNoise(5, 20_000, CPU).full(), expected)


@settings(max_examples=60, deadline=None)
@given(
    vocab=st.integers(20_000, 40_000),
    count=st.integers(1, 70),
    coarse=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_highest_logits_of_a_large_vocabulary_are_found(vocab, count, coarse, seed):
    row = logits_like_a_models(vocab, 3, 0, seed)[0]
    if coarse:
        row = row.round()
    top = Head.of(row, count)
    expected = row.topk(count).values
    assert (top.logits == expected.numpy()).all()
    assert (row.numpy()[top.ids] == top.logits).all()
    assert len(set(top.ids.tolist())) == count
    sure = [n for n in range(count + 1) if top.determines(n)]
    for n in sure:
        assert top.ids[:n].tolist() == highest_ids(row, count).tolist()[:n]


def test_a_min_p_that_underflows_float32_removes_nothing_as_its_stage():
    logits = logits_like_a_models(300, 60, 0, 1)
    for ours, theirs in both(Chain(SamplingParams(min_p=1e-50)), logits, 10, 1):
        check_same(ours, theirs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_run_gone_on_with_after_a_fork_is_an_error_and_not_a_wait_for_ever():
    noise = ExponentialNoise(0, 70_000, CPU)
    noise.full()
    child = os.fork()
    if not child:  # the child says by its exit code what happened
        try:
            signal.alarm(20)
            noise.full()
            noise.full()
        except DecodeError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
