"""The float64 functions against scipy, and the two calculators against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from decodecli.sampling import plain_python
from decodecli.sampling import reference as d


@pytest.mark.parametrize("case", range(100))
def test_softmax_and_entropy_equal_scipys_over_large_vocabularies(case):
    random = np.random.default_rng(case)
    size = int(random.integers(32_000, 256_000))
    logits = random.normal(0, random.choice([0.1, 1, 5, 40]), size)
    if case % 3 == 0:
        logits = np.round(logits)  # ties
    if case % 4 == 0:
        logits[random.integers(0, size, size // 10)] = -np.inf
    ours = d.log_softmax(logits)
    expected = scipy.special.softmax(logits)
    np.testing.assert_allclose(np.exp(ours), expected, rtol=1e-6, atol=1e-300)
    assert d.entropy(ours) == pytest.approx(scipy.stats.entropy(expected), rel=1e-6, abs=1e-12)


numbers = st.one_of(st.integers(-5, 5).map(float), st.floats(-60, 60))
lists = st.lists(numbers, min_size=1, max_size=30)


@settings(max_examples=300, deadline=None)
@given(
    scores=lists,
    temperature=st.sampled_from([0.0, 1e-10, 0.01, 0.5, 1.0, 3.0, 1e10, math.inf]),
)
def test_lists_and_arrays_are_computed_alike(scores, temperature):
    if len(scores) > 2:
        scores[1] = -math.inf
    by_hand, arrays = (
        plain_python.log_softmax(scores, temperature),
        d.log_softmax(scores, temperature),
    )
    np.testing.assert_allclose(by_hand, arrays, rtol=1e-9, atol=1e-9)
    assert plain_python.entropy(by_hand) == pytest.approx(d.entropy(arrays), abs=1e-9)
    assert plain_python.covering(by_hand) == d.covering(arrays)
    assert plain_python.margin(by_hand) == pytest.approx(d.margin(arrays), abs=1e-9)
    assert plain_python.row_order(scores) == list(d.row_order(scores))
    assert [plain_python.rank_of(scores, i) for i in range(len(scores))] == [
        d.rank_of(scores, i) for i in range(len(scores))
    ]
    assert plain_python.kept(by_hand) == d.kept(arrays)


def test_the_limits_are_the_highest_alone_and_all_alike():
    for module in (plain_python, d):
        assert list(module.log_softmax([1.0, 3.0, 3.0], 0.0)) == [
            -math.inf,
            math.log(0.5),
            math.log(0.5),
        ]
        np.testing.assert_allclose(
            np.exp(module.log_softmax([1.0, 3.0, -math.inf], math.inf)), [0.5, 0.5, 0]
        )


def test_how_many_tokens_hold_a_share_of_the_mass():
    logprobs = np.log([0.5, 0.3, 0.15, 0.05])
    for module in (plain_python, d):
        assert module.covering(logprobs, (0.5, 0.8, 0.81, 1.0)) == (1, 2, 3, 4)
