"""Value expressions of a sweep's axes."""

from __future__ import annotations

import math
import time
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from decodecli.errors import UsageError
from decodecli.settings import SamplingParams
from decodecli.sweeps.axes import AXES, MOST_VALUES, parse_axis

TENTHS = st.integers(0, 400).map(lambda n: Decimal(n) / 10)


def refused(name, value, *words, **how):
    """The message, which must name the axis and hold the words."""
    with pytest.raises(UsageError) as error:
        parse_axis(name, value, **how)
    message = error.value.message
    assert "--" + name.replace("_", "-") in message, message
    for word in words:
        assert str(word) in message + error.value.hint, str(error.value)
    assert error.value.hint
    assert len(message) <= 160
    return message


@pytest.mark.parametrize(
    ("name", "expression", "values"),
    [
        ("temperature", "0.2,0.7,1.0", (0.2, 0.7, 1.0)),
        ("temperature", " 0.2 , 1 ", (0.2, 1.0)),
        ("temperature", "1e-3", (0.001,)),
        ("temperature", "greedy,0.5", (0.0, 0.5)),
        ("temperature", "1..3", (1.0, 2.0, 3.0)),
        ("temperature", "0.1:0.5:0.1", (0.1, 0.2, 0.3, 0.4, 0.5)),
        ("temperature", "0:1:0.3", (0.0, 0.3, 0.6, 0.9)),
        ("temperature", "1:0.4:-0.2", (1.0, 0.8, 0.6, 0.4)),
        ("temperature", "0.5:0.5:0.1", (0.5,)),
        ("temperature", "0,0.5:2:0.5", (0.0, 0.5, 1.0, 1.5, 2.0)),
        ("temperature", "log:0.01:100:5", (0.01, 0.1, 1.0, 10.0, 100.0)),
        ("temperature", "log:8:2:3", (8.0, 4.0, 2.0)),
        ("seed", "0..4", (0, 1, 2, 3, 4)),
        ("seed", "7..7", (7,)),
        ("seed", "1,3,8..10", (1, 3, 8, 9, 10)),
        ("seed", "4294967295", (4294967295,)),
        ("top_k", "10:50:20", (10, 30, 50)),
        ("top_k", "log:1:100:5", (1, 3, 10, 32, 100)),
        ("max_new_tokens", "8,16", (8, 16)),
        ("bos", "on,off", (True, False)),
        ("bos", "Off, auto", (False, None)),
        ("bos", "1,0", (True, False)),
        ("stop", "a,b", (("a,b",),)),
    ],
)
def test_an_expression_gives_its_values(name, expression, values):
    found = parse_axis(name, expression)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("name", "given", "values"),
    [
        ("temperature", 1, (1.0,)),
        ("temperature", [0, "0.5:1:0.25", 2], (0.0, 0.5, 0.75, 1.0, 2.0)),
        ("seed", range(3), (0, 1, 2)),
        ("bos", None, (None,)),
        ("bos", [True, "off"], (True, False)),
        ("stop", ("a", "b"), (("a", "b"),)),
        ("stop", [], ((),)),
        ("stop", [["a"], "b", ["c", "d"], []], (("a",), ("b",), ("c", "d"), ())),
    ],
)
def test_values_and_lists_are_taken_as_they_are(name, given, values):
    assert parse_axis(name, given) == values


@given(TENTHS, TENTHS, st.integers(1, 30).map(lambda n: Decimal(n) / 100))
def test_steps_are_exact_decimals_from_the_first_to_the_last(low, high, step):
    assume(low <= high)
    found = parse_axis("temperature", f"{low}:{high}:{step}")
    assert found[0] == float(low)
    assert all(value == float(low + n * step) for n, value in enumerate(found))
    assert low + (len(found) - 1) * step <= high < low + len(found) * step
    if (high - low) % step == 0:
        assert found[-1] == float(high)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 40))
def test_geometric_values_have_one_ratio_and_exact_ends(low, high, count):
    assume(abs(math.log(high / low)) > 1e-6)
    found = parse_axis("temperature", f"log:{low!r}:{high!r}:{count}")
    assert (found[0], found[-1], len(found)) == (low, high, count)
    np.testing.assert_allclose(found, np.geomspace(low, high, count), rtol=1e-12)


def test_a_step_of_rounded_thirds_still_hits_the_end():
    assert parse_axis("temperature", "0:1:0.333333333333")[-1] == 1.0
    assert parse_axis("temperature", "0:1:0.3333")[-1] == 0.9999


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8, unique=True))
def test_numbers_as_they_are_written_by_python_are_read_back(values):
    assert parse_axis("temperature", ",".join(map(repr, values))) == tuple(values)


@given(
    st.one_of(
        st.tuples(st.just("temperature"), st.sampled_from(["0..4", "0.1:1:0.1", "greedy", 1, [2, "3"]])),
        st.tuples(st.just("bos"), st.sampled_from(["on,off,auto", None, False])),
        st.tuples(st.just("stop"), st.sampled_from(["a", ["a", "b"], [["a"], []], [], ()])),
        st.tuples(st.just("seed"), st.sampled_from(["0..9", 3, "5,6"])),
    )
)  # fmt: skip
def test_parsed_values_parse_to_themselves(case):
    name, value = case
    found = parse_axis(name, value)
    assert parse_axis(name, found) == parse_axis(name, list(found)) == found


def test_every_decoding_option_is_an_axis_and_the_seed_the_last():
    assert set(AXES) == set(SamplingParams().as_dict()) - {"greedy"} | {"bos"}
    assert AXES[-1] == "seed"
    for name in AXES[:-2]:
        default = getattr(SamplingParams(), name)
        assert parse_axis(name, default) == (default,)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("temperature", "x", "'x'"),
        ("temperature", "", "''"),
        ("temperature", "0.2,,0.4", "0.2,,0.4"),
        ("temperature", "0.2,", "empty"),
        ("temperature", "nan", "nan"),
        ("temperature", "inf", "inf"),
        ("temperature", "１", "１"),
        ("temperature", "1_0", "1_0"),
        ("temperature", "0:1", "three parts"),
        ("temperature", "0:1:0", "step"),
        ("temperature", "0:1:-0.1", "down"),
        ("temperature", "1:0:0.1", "down"),
        ("temperature", "0:1:0.5:2", "three parts"),
        ("temperature", "0.5..2", "0.5:2:0.1"),
        ("temperature", "1...3", "1...3"),
        ("temperature", "4..0", "0..4"),
        ("temperature", "log:0:1:3", "above 0"),
        ("temperature", "log:1:10:1", "2 values"),
        ("temperature", "log:1:10", "log:0.1:10:5"),
        ("temperature", "log:1:10:2.5", "2.5"),
        ("temperature", "1e999999", "1e999999"),
        ("temperature", True, "True"),
        ("temperature", None, "None"),
        ("temperature", [0.5, float("nan")], "nan"),
        ("temperature", [], "no values"),
        ("temperature", {"a": 1}, "a"),
        ("temperature", "-1,1", "-1"),
        ("top_p", "0.5,1.5", "1.5"),
        ("top_p", "0:1:0.1", "got 0"),
        ("top_p", "greedy", "greedy"),
        ("top_k", "2.5", "2.5"),
        ("top_k", [2.5], "2.5"),
        ("top_k", "0..3.5", "0..4"),
        ("top_k", "-2..3", "-2"),
        ("top_k", "1:10:0.5", "0.5"),
        ("top_k", "log:1:4:8", "fewer"),
        ("seed", "-3..2", "-3"),
        ("seed", "4294967290..4294967296", "4294967296"),
        ("seed", "0..10**12", "0..10**12"),
        ("seed", "9" * 5000, "999…"),
        ("seed", None, "None"),
        ("bos", "maybe", "maybe"),
        ("bos", "on,,off", "empty"),
        ("bos", 3, "3"),
        ("stop", "", "empty"),
        ("stop", [["a"], 3], "3"),
        ("stop", [["a", 3]], "3"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_value_is_refused_by_axis_and_value(name, value, word):
    refused(name, value, word)


def test_a_value_given_twice_is_refused_unless_axes_are_paired():
    refused("temperature", "0.5,0.50", "0.5", "twice")
    refused("seed", "0..4,3", "3", "twice")
    refused("bos", "on,off,on", "on", "twice")
    refused("stop", [["a"], ["a"]], "['a']", "twice")
    assert parse_axis("top_p", "0.2,0.2,0.9", repeats=True) == (0.2, 0.2, 0.9)


def test_an_axis_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"tempratur.*did you mean temperature"):
        parse_axis("tempratur", 1)
    with pytest.raises(UsageError, match="top_p"):
        parse_axis("top-p", 1)


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("seed", "0..1000000000000"),
        ("seed", f"1..{MOST_VALUES + 1}"),
        ("temperature", "0..1" + "0" * 300),
        ("temperature", "0:1:1e-300"),
        ("temperature", f"log:1:2:{MOST_VALUES + 1}"),
        ("temperature", "log:1:2:1" + "0" * 300),
    ],
)
def test_more_values_than_can_be_are_refused_at_once(name, expression):
    start = time.perf_counter()
    refused(name, expression, "values", f"{MOST_VALUES:,}")
    assert time.perf_counter() - start < 0.2


def test_many_parts_together_are_no_way_around_the_limit():
    refused("seed", "0..599999,600000..1199999", "1,200,000")
