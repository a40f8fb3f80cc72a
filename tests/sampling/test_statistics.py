"""Every recorded number equals a float64 recomputation from the same logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodecli.errors import DecodeError
from decodecli.sampling import reference as d
from decodecli.sampling.chain import Chain, draw
from decodecli.sampling.noise import ExponentialNoise
from decodecli.sampling.statistics import compute, highest_ids, unpack
from decodecli.settings import SamplingParams

VOCAB, CPU = 300, torch.device("cpu")
TEMPERATURES = [0.001, 0.01, 0.1, 0.5, 1.0, 1.4, 5.0, 20.0, 100.0]


def close(ours: float, theirs: float) -> bool:
    """The contract's tolerance: 1e-4 relative or 1e-5 absolute."""
    return math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=1e-5)


def step_of(logits, processed, chain, token, count, index=0):
    """The step that drew `token` from `logits` (vocab,)."""
    packed = compute(logits[None], processed, chain, torch.tensor([[token]]), count)
    return unpack(packed.numpy(), chain, count, len(logits), str, index)


@st.composite
def logits_of(draw_value, vocab: int = VOCAB):
    """Random logits: narrow or wide, with ties, with a peak, like a 16-bit model's or not."""
    generator = torch.Generator().manual_seed(draw_value(st.integers(0, 2**31)))
    logits = torch.randn(vocab, generator=generator) * draw_value(st.sampled_from([0.01, 1, 4, 30]))
    logits += draw_value(st.sampled_from([0.0, -50.0, 1000.0]))
    if draw_value(st.booleans()):
        logits[draw_value(st.integers(0, vocab - 1))] += 25
    if draw_value(st.booleans()):
        logits = logits.to(torch.bfloat16).float()
    return logits


def penalised64(logits: torch.Tensor, ids: list[int], penalty: float) -> np.ndarray:
    # The penalty is applied in float32, as the draw sees it; its values are exact in float64.
    if penalty == 1.0:
        return logits.double().numpy()
    penalised = logits.clone()
    seen = sorted(set(ids))
    part = penalised[seen]
    penalised[seen] = torch.where(part < 0, part * penalty, part / penalty)
    return penalised.double().numpy()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    logits=logits_of(),
    temperature=st.sampled_from([0.0, *TEMPERATURES]),
    top_k=st.sampled_from([0, 0, 1, 7, 290]),
    top_p=st.sampled_from([1.0, 0.1, 0.9]),
    min_p=st.sampled_from([0.0, 0.05]),
    typical_p=st.sampled_from([1.0, 1.0, 0.6]),
    penalty=st.sampled_from([1.0, 1.3, 0.7]),
    size=st.sampled_from([0, 1, 2]),
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([1, 5, 10, VOCAB]),
)
def test_every_number_of_a_step_equals_its_float64_recomputation(
    logits, temperature, top_k, top_p, min_p, typical_p, penalty, size, seed, count
):
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p,
        repetition_penalty=penalty, no_repeat_ngram_size=size,
    )  # fmt: skip
    history = [3, 1, 4, 1, 5, 9, 2, 6, 1]
    chain = Chain(params)
    filtered = chain(logits[None], torch.tensor([history]))
    token = int(
        draw(filtered.scores, None if chain.greedy else ExponentialNoise(seed, VOCAB, CPU).full())
    )
    seen = step_of(logits, filtered, chain, token, count)

    exact = logits.double().numpy()
    plain = d.log_softmax(exact)
    divisor = temperature or 1.0
    changed = penalised64(logits, history, penalty)
    tempered = d.log_softmax(changed, divisor)
    removed = np.isneginf(filtered.scores[0].numpy())
    final = d.log_softmax(np.where(removed, -np.inf, changed), divisor)
    if chain.greedy:
        final = np.full(VOCAB, -np.inf)
        final[token] = 0.0

    order = d.row_order(exact)
    wanted = list(order[:count])
    assert [row.token_id for row in seen.candidates[: len(wanted)]] == wanted
    assert {row.token_id for row in seen.candidates} == {*wanted, token}
    place = {int(token_id): number for number, token_id in enumerate(order)}
    in_order = np.cumsum(np.exp(tempered[order]))
    for row in seen.candidates:
        i = row.token_id
        assert row.rank == d.rank_of(exact, i)
        assert row.logit == exact[i]
        assert close(row.logprob, plain[i])
        assert close(row.tempered_logprob, tempered[i])
        assert close(row.cumulative, in_order[place[i]])
        assert (
            (row.final_logprob is None)
            == (row.removed_by is not None)
            == bool(np.isneginf(final[i]))
        )
        if row.final_logprob is not None:
            assert close(row.final_logprob, final[i])
    assert seen.rank == d.rank_of(exact, token)
    assert close(seen.logprob, plain[token])
    assert close(seen.tempered_logprob, tempered[token])
    assert close(seen.final_logprob, final[token])
    assert close(seen.entropy, d.entropy(plain))
    assert close(seen.final_entropy, d.entropy(final))
    assert seen.kept == int(np.isfinite(final).sum())


@pytest.mark.parametrize("vocab", [32_000, 256_000])
@pytest.mark.parametrize("temperature", [0.001, 1.0, 100.0])
def test_numbers_hold_over_a_large_vocabulary(vocab, temperature):
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(5)) * 3
    chain = Chain(SamplingParams(temperature=temperature, top_p=0.9))
    filtered = chain(logits[None], None)
    token = int(draw(filtered.scores, ExponentialNoise(1, vocab, CPU).full()))
    seen = step_of(logits, filtered, chain, token, 10)
    tempered = d.log_softmax(logits.double().numpy(), temperature)
    assert close(seen.entropy, d.entropy(d.log_softmax(logits.double().numpy())))
    assert close(seen.tempered_logprob, tempered[token])
    removed = np.isneginf(filtered.scores[0].numpy())
    final = d.log_softmax(np.where(removed, -np.inf, logits.double().numpy()), temperature)
    assert close(seen.final_logprob, final[token])
    assert close(seen.final_entropy, d.entropy(final))


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=40), count=st.integers(0, 45))
def test_equal_logits_are_listed_by_id_and_share_a_rank(values, count):
    logits = torch.tensor(values, dtype=torch.float32)
    assert highest_ids(logits, count).tolist() == [int(i) for i in d.row_order(values)[:count]]
    chain = Chain(SamplingParams(temperature=0))
    seen = step_of(logits, chain(logits[None], None), chain, 0, count)
    assert all(row.rank == d.rank_of(values, row.token_id) for row in seen.candidates)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_noticed(bad):
    logits = torch.zeros(50)
    logits[17] = bad
    chain = Chain(SamplingParams())
    with pytest.raises(DecodeError, match="step 3"):
        step_of(logits, chain(logits[None], None), chain, 0, 10, index=3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_settings_that_leave_no_token_are_an_error(temperature):
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    chain = Chain(SamplingParams(temperature=temperature, no_repeat_ngram_size=1))
    filtered = chain(logits, torch.tensor([[0, 1, 2]]))
    with pytest.raises(DecodeError, match="no_repeat_ngram_size"):
        step_of(logits[0], filtered, chain, 0, 3)


@pytest.mark.parametrize("temperature", [1e-45, 1e-300, 1e300])
def test_absurd_temperatures_neither_overflow_nor_give_numbers_json_cannot_hold(temperature):
    logits = torch.tensor([1.0, 2.0, 3.0, 1000.0])
    chain = Chain(SamplingParams(temperature=temperature))
    filtered = chain(logits[None], None)
    token = int(draw(filtered.scores, ExponentialNoise(0, 4, CPU).full()))
    seen = step_of(logits, filtered, chain, token, 4)
    numbers = [row.tempered_logprob for row in seen.candidates]
    assert all(math.isfinite(number) for number in [*numbers, seen.final_entropy])
    if temperature < 1:
        assert token == 3
