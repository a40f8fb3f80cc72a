"""Distributions, draws and the cache of `explore`, against generate and inspect-logits."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

import decodecli
from decodecli import SamplingParams
from decodecli.decoding.prompt import prefill
from decodecli.errors import DecodeError
from decodecli.explore.engine import ModelSource, Noise, NumbersSource
from decodecli.sampling.one_position import Distribution

PROMPT = "The capital of Japan is"


def source_of(lm, prompt=PROMPT):
    return ModelSource(prefill(lm, prompt))


def draw_on(source, ids, params, seed, count, noise=None):
    """The ids that a person gets who presses space."""
    noise = noise or Noise(source.vocab_size)
    drawn = []
    while len(drawn) < count and (not drawn or drawn[-1] not in source.eos_ids):
        place = (*ids, *drawn)
        distribution = Distribution(source.logits(place), place, params)
        drawn.append(distribution.draw(noise.at(seed, len(drawn))))
    return drawn


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=1.4, top_p=0.9),
        SamplingParams(temperature=0.7, top_k=40, min_p=0.05, repetition_penalty=1.3),
        SamplingParams(temperature=0),
    ],
    ids=["plain", "top-p", "everything", "greedy"],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_draws_are_those_of_generate(tiny_lm, params, seed):
    source = source_of(tiny_lm)
    ids = source.prefix.ids
    run = decodecli.generate(tiny_lm, PROMPT, replace(params, seed=seed, max_new_tokens=12))
    assert draw_on(source, ids, params, seed, 12) == list(run.summary.token_ids)


def test_branches_taken_back_and_forth_give_the_ids_of_runs_from_scratch(tiny_lm):
    """Cuts in the cache leave no trace: 50 branches of one source, visited in any order."""
    source, choose = source_of(tiny_lm), random.Random(3)
    ids, params = source.prefix.ids, SamplingParams(temperature=1.2)
    branches = [()]
    for number in range(50):
        stem = choose.choice(branches)
        stem = stem[: choose.randint(0, len(stem))]
        drawn = draw_on(source, (*ids, *stem), params, number, 4)
        fresh = source_of(tiny_lm, [*ids, *stem])
        assert drawn == draw_on(fresh, fresh.prefix.ids, params, number, 4)
        branches.append((*stem, *drawn))


def test_undo_and_other_branches_run_only_what_is_new(lm, monkeypatch):
    source = source_of(lm)
    ids, lengths = source.prefix.ids, []
    extend = source.prefix.runner.forward.extend
    monkeypatch.setattr(
        source.prefix.runner.forward,
        "extend",
        lambda tokens, cache: lengths.append(tokens.shape[1]) or extend(tokens, cache),
    )
    for place in ((5,), (5, 6), (5, 6, 7), (5, 6), (5, 9), (5, 9, 8, 7)):
        source.logits((*ids, *place))
    assert lengths == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("temperature", np.geomspace(0.05, 10, 20).tolist())
def test_numbers_are_those_of_inspect_logits(lm, temperature):
    params = SamplingParams(top_p=0.9, repetition_penalty=1.2)
    source = source_of(lm)
    ids = source.prefix.ids
    seen = Distribution(source.logits(ids), ids, replace(params, temperature=temperature))
    report = decodecli.next_token(
        lm, PROMPT, [temperature], top_p=0.9, repetition_penalty=1.2, rows=30
    )
    for row in report.rows:
        candidate = seen.candidate(row.token_id, row.token)
        assert candidate.rank == row.rank
        assert np.exp(candidate.tempered_logprob) == pytest.approx(row.probability[0], abs=1e-6)
        assert candidate.removed_by == row.removed_by[0]
        final = 0.0 if candidate.final_logprob is None else np.exp(candidate.final_logprob)
        assert final == pytest.approx(row.final[0] or 0.0, abs=1e-6)
    assert seen.kept == report.spreads[0].kept
    assert seen.entropies[1] == pytest.approx(report.spreads[0].final_entropy, abs=1e-6)


def test_the_noise_of_any_step_is_that_of_a_run():
    run = Noise(100)
    in_order = [run.at(3, index).clone() for index in range(5)]
    other = Noise(100)
    for index in (4, 0, 2, 1, 3):
        assert torch.equal(other.at(3, index), in_order[index])
        other.at(9, 1)


def test_a_full_context_is_told(tiny_lm):
    if tiny_lm.context is None:
        pytest.skip("this architecture sets no limit")
    source = source_of(tiny_lm, [5] * (tiny_lm.context - 1))
    with pytest.raises(DecodeError, match="is full"):
        source.logits((*source.prefix.ids, 5))


def test_typed_numbers_are_the_same_at_every_step():
    source = NumbersSource([("day", 5.0), ("space", 2.2)])
    first = Distribution(source.logits(()), (), SamplingParams())
    report = decodecli.softmax({"day": 5.0, "space": 2.2})
    for row in report.rows:
        assert np.exp(first.logprobs[row.token_id]) == pytest.approx(row.probability[0], abs=1e-6)
    assert source.texts((), [0, 1, 0]) == ["day ", "space ", "day "]
