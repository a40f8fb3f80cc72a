"""Intervals against scipy, and at their edges."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from decodecli.analysis.confidence_intervals import (
    jackknife,
    mean,
    student,
    student_quantile,
    wilson,
)

NUMBERS = st.floats(-1e6, 1e6)


@pytest.mark.parametrize("freedom", [*range(1, 60), 99, 500, 999, 1000, 1001, 4999, 99_999, 10**8])
def test_students_quantile_is_scipys(freedom):
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)


def test_students_quantile_needs_a_degree_of_freedom():
    with pytest.raises(ValueError, match="at least one"):
        student_quantile(0)


@pytest.mark.parametrize("trials", [1, 2, 3, 7, 20, 100, 100_000])
def test_wilsons_interval_is_scipys(trials):
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        test = stats.binomtest(successes, trials)
        expected = test.proportion_ci(confidence_level=0.95, method="wilson")
        assert wilson(successes, trials) == pytest.approx(tuple(expected), rel=1e-12, abs=1e-15)


def test_all_right_still_leaves_room_for_doubt():
    low, high = wilson(5, 5)
    assert (round(low, 3), high) == (0.566, 1.0)
    low, high = wilson(0, 5)
    assert (low, round(high, 3)) == (0.0, 0.434)


def test_a_proportion_of_nothing_has_no_interval():
    assert wilson(0, 0) is None


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (1, 0)])
def test_more_successes_than_trials_are_refused(successes, trials):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(successes, trials)


@given(st.integers(0, 300), st.integers(0, 300))
def test_wilsons_interval_holds_the_proportion(right, wrong):
    if right + wrong:
        low, high = wilson(right, right + wrong)
        assert 0 <= low <= right / (right + wrong) <= high <= 1
        mirrored = wilson(wrong, right + wrong)
        assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=30))
def test_students_interval_is_scipys(values):
    error = stats.sem(values)
    low, high = student(values)
    if min(values) == max(values):
        assert low == high == values[0]
    elif error > 1e-9:
        centre = sum(values) / len(values)
        expected = stats.t.interval(0.95, len(values) - 1, loc=centre, scale=error)
        assert (low, high) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_one_value_has_no_interval(values):
    assert student(values) is None
    assert jackknife(0.3, values) is None


def test_equal_values_have_an_interval_without_width():
    assert student([0.1] * 7) == (0.1, 0.1)


@given(st.lists(NUMBERS, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_values_changes_no_digit(values, rng: random.Random):
    shuffled = rng.sample(values, len(values))
    assert mean(shuffled) == mean(values)
    assert student(shuffled) == student(values)
    assert min(values) <= mean(values) <= max(values)


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="no values"):
        mean([])


@given(st.lists(NUMBERS, min_size=2, max_size=20))
def test_the_jackknife_of_a_mean_is_students_interval(values):
    total, rest = sum(values), len(values) - 1
    without = [(total - value) / rest for value in values]
    found = jackknife(total / len(values), without)
    assert found == pytest.approx(student(values), rel=1e-6, abs=1e-3)
