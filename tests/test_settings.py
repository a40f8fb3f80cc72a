"""Decoding and loading settings: valid, or a `UsageError` that says what the range is."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decodecli.errors import DecodecliError, UsageError
from decodecli.memory_size import memory_limits, memory_size
from decodecli.ranges import CONSTRAINTS, flag_name
from decodecli.settings import LoadParams, SamplingParams
from decodecli.stages import ORDER

# What each value may be, by the contract and transformers' own limits.
RANGES = {
    "temperature": lambda x: 0 <= x < math.inf,
    "top_p": lambda x: 0 < x <= 1,
    "min_p": lambda x: 0 <= x <= 1,
    "typical_p": lambda x: 0 < x <= 1,
    "epsilon_cutoff": lambda x: 0 <= x < 1,
    "eta_cutoff": lambda x: 0 <= x < 1,
    "top_nsigma": lambda x: 0 <= x < math.inf,
    "repetition_penalty": lambda x: 0 < x < math.inf,
    "max_new_tokens": lambda x: x >= 1,
    "top_k": lambda x: x >= 0,
    "no_repeat_ngram_size": lambda x: x >= 0,
    "seed": lambda x: 0 <= x < 2**32,
    "top_h": lambda x: 0 <= x <= 1,
    "top_a": lambda x: 0 <= x <= 1,
    "tfs_z": lambda x: 0 < x <= 1,
    "xtc_probability": lambda x: 0 <= x <= 1,
    "xtc_threshold": lambda x: 0 < x <= 1,
    "mirostat": lambda x: x in (0, 2),
    "mirostat_tau": lambda x: 0 < x < math.inf,
    "mirostat_eta": lambda x: 0 <= x < math.inf,
    "dynatemp_range": lambda x: 0 <= x < math.inf,
    "dynatemp_exponent": lambda x: 0 < x < math.inf,
    "presence_penalty": math.isfinite,
    "frequency_penalty": math.isfinite,
    "penalty_last_n": lambda x: x >= -1,
    "dry_multiplier": lambda x: 0 <= x < math.inf,
    "dry_base": lambda x: 1 <= x < math.inf,
    "dry_allowed_length": lambda x: x >= 1,
    "dry_penalty_last_n": lambda x: x >= -1,
    "min_new_tokens": lambda x: x >= 0,
}
INTEGERS = (
    "max_new_tokens", "top_k", "no_repeat_ngram_size", "seed", "mirostat", "penalty_last_n",
    "dry_allowed_length", "dry_penalty_last_n", "min_new_tokens",
)  # fmt: skip
TEXTS = ("stop", "logit_bias", "bad_words", "dry_sequence_breakers")
DEFAULTS = {
    "max_new_tokens": 40, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
    "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "top_nsigma": 0.0,
    "repetition_penalty": 1.0, "constraint": "", "no_repeat_ngram_size": 0, "stop": (), "seed": None,
    "top_h": 0.0, "top_a": 0.0, "tfs_z": 1.0, "xtc_probability": 0.0, "xtc_threshold": 0.1,
    "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "penalty_last_n": -1,
    "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1,
    "dry_sequence_breakers": ("\n", ":", '"', "*"), "min_new_tokens": 0, "logit_bias": (),
    "bad_words": (), "order": "transformers",
}  # fmt: skip

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.floats(-2, 2),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.decimals(),
    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from([10**400, -(10**400), np.float32(0.5), np.int64(3), np.bool_(True), object()]),
)


def test_the_defaults_are_those_of_the_contract():
    assert dataclasses.asdict(SamplingParams()) == DEFAULTS
    load = LoadParams()
    assert (load.model, load.revision) == ("builtin", None)
    assert (load.device, load.dtype, load.quantize) == ("auto", "auto", "auto")
    assert (load.allow_pickle, load.trust_remote_code) == (False, False)


def attempt(name, value):
    """The settings, or the error that refuses them."""
    try:
        return SamplingParams(**{name: value}), None
    except UsageError as error:
        return None, error


@given(name=st.sampled_from(sorted(DEFAULTS)), value=ANYTHING)
@example(name="stop", value=5)
@example(name="temperature", value=10**400)
@example(name="top_k", value=True)
@example(name="seed", value=2**32)
def test_whatever_is_given_the_settings_are_valid_or_a_usage_error(name, value):
    params, error = attempt(name, value)
    if error is not None:
        assert error.exit_code == 2
        assert flag_name(name) in error.message
        assert error.hint
        assert "\n" not in error.message + error.hint
        return
    kept = getattr(params, name)
    if name == "order":
        assert kept == "transformers" or set(kept.split(",")) <= set(ORDER)
    elif name == "constraint":
        assert kept in ("", "json") or kept.partition(":")[0] in CONSTRAINTS
    elif name in TEXTS:
        assert isinstance(kept, tuple)
        assert all(type(text) is str and text for text in kept)
    elif kept is None:
        assert name == "seed"
    else:
        assert type(kept) is (int if name in INTEGERS else float)
        assert RANGES[name](kept)
        assert not isinstance(value, bool | str)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 1e300),
            "top_p": st.floats(0, 1, exclude_min=True),
            "min_p": st.floats(0, 1),
            "typical_p": st.floats(0, 1, exclude_min=True),
            "epsilon_cutoff": st.floats(0, 1, exclude_max=True),
            "eta_cutoff": st.floats(0, 1, exclude_max=True),
            "top_nsigma": st.floats(0, 1e300),
            "repetition_penalty": st.floats(0, 1e300, exclude_min=True),
            "max_new_tokens": st.integers(1),
            "top_k": st.integers(0),
            "no_repeat_ngram_size": st.integers(0),
            "seed": st.integers(0, 2**32 - 1),
            "stop": st.lists(st.text(min_size=1)),
        },
    )
)
def test_every_value_within_its_range_is_accepted_and_kept(values):
    params = SamplingParams(**values)
    for name, value in values.items():
        assert getattr(params, name) == (tuple(value) if name == "stop" else value)
    assert params.as_dict()["stop"] == values.get("stop", [])


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("temperature", [(0, True), (-1e-9, False), (math.inf, False), (math.nan, False)]),
        ("top_p", [(0, False), (1e-300, True), (1, True), (1.0000001, False)]),
        ("min_p", [(0, True), (1, True), (-1e-9, False), (1.01, False)]),
        ("typical_p", [(0, False), (1, True), (1.01, False)]),
        ("epsilon_cutoff", [(0, True), (1, False), (0.999, True)]),
        ("eta_cutoff", [(0, True), (1, False), (-1, False)]),
        ("top_nsigma", [(0, True), (1e-9, True), (-1, False), (math.inf, False)]),
        ("repetition_penalty", [(0, False), (1e-9, True), (math.inf, False)]),
        ("max_new_tokens", [(0, False), (1, True), (1.0, False)]),
        ("top_k", [(-1, False), (0, True), (10**9, True), (2.0, False)]),
        ("no_repeat_ngram_size", [(-1, False), (0, True)]),
        ("seed", [(-1, False), (0, True), (2**32 - 1, True), (2**32, False)]),
    ],
)
def test_the_edges_of_each_range(name, edges):
    for value, fits in edges:
        if fits:
            assert getattr(SamplingParams(**{name: value}), name) == value
        else:
            with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
                SamplingParams(**{name: value})


def test_a_usage_error_is_a_value_error_and_one_of_the_family():
    with pytest.raises(ValueError, match="--top-p"):
        SamplingParams(top_p=2)
    with pytest.raises(DecodecliError):
        SamplingParams(top_p=2)


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_temperature_zero_is_greedy(zero):
    assert SamplingParams(temperature=zero).greedy
    assert not SamplingParams(temperature=1e-300).greedy
    assert SamplingParams(temperature=zero).as_dict()["greedy"] is True


def test_one_stop_string_is_a_list_of_one():
    assert SamplingParams(stop="END").stop == ("END",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")
    with pytest.raises(UsageError, match="--stop"):
        SamplingParams(stop=["a", ""])


def test_settings_are_frozen_and_equal_by_value():
    params = SamplingParams(top_k=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 4
    assert params == SamplingParams(top_k=3)
    assert hash(params) == hash(SamplingParams(top_k=3))


def test_replacing_a_value_checks_it_again():
    with pytest.raises(UsageError):
        dataclasses.replace(SamplingParams(), top_p=0)


@given(st.one_of(st.text(max_size=8), st.from_regex(r"(cuda|cpu|auto|mps)?:?\d*", fullmatch=True)))
@example("auto:")
@example("cpu:0")
@example("cuda:")
@example("cuda:01")
@example("CUDA")
def test_a_device_is_one_of_the_contracts_spellings_or_a_usage_error(device):
    if re.fullmatch(r"auto|cuda(:[0-9]+)?|mps|cpu", device):
        assert LoadParams(device=device).device == device
    else:
        with pytest.raises(UsageError, match="--device"):
            LoadParams(device=device)


@given(name=st.sampled_from(["dtype", "quantize"]), value=st.text(max_size=8))
def test_types_and_schemes_are_named_or_refused(name, value):
    known = {
        "dtype": {"auto", "float32", "bfloat16", "float16"},
        "quantize": {"auto", "none", "nf4", "fp4", "int8"},
    }[name]
    if value in known:
        LoadParams(**{name: value})
    else:
        with pytest.raises(UsageError, match="--" + name):
            LoadParams(**{name: value})


def test_every_known_type_and_scheme_is_accepted():
    for dtype in ("auto", "float32", "bfloat16", "float16"):
        for quantize in ("auto", "none", "nf4", "fp4", "int8"):
            LoadParams(dtype=dtype, quantize=quantize)


def test_an_error_reads_as_what_is_wrong_and_what_to_do():
    error = UsageError("it is wrong", "do this")
    assert str(error) == "it is wrong (do this)"
    assert str(UsageError("it is wrong")) == "it is wrong"


def test_memory_limits_are_read_in_every_unit():
    assert memory_limits("0=10GiB,cpu=30GiB") == {0: 10 * 2**30, "cpu": 30 * 2**30}
    assert memory_limits("cuda:1=500MB, CPU=1.5gib") == {1: 500_000_000, "cpu": 3 * 2**29}
    assert memory_limits("cpu=12345") == {"cpu": 12345}
    assert LoadParams(max_memory="cpu=1GB", device="cpu").max_memory == "cpu=1GB"


@given(
    st.dictionaries(
        st.one_of(st.integers(0, 99), st.just("cpu")), st.integers(1, 2**50), min_size=1
    )
)
def test_what_is_written_as_limits_is_read_as_such(limits):
    text = ",".join(f"{device}={size}" for device, size in limits.items())
    assert memory_limits(text) == limits


@pytest.mark.parametrize(
    "text",
    ["", "10GiB", "0=", "gpu=1GB", "0=1GB,0=2GB", "0=-1GB", "0=1TB", "cpu=0", "0:1GB", "٣=1GB"],
)
def test_memory_limits_that_make_no_sense_are_refused(text):
    with pytest.raises(UsageError, match="--max-memory"):
        LoadParams(max_memory=text)


@pytest.mark.parametrize(
    ("device", "text"), [("cpu", "0=1GB"), ("cuda:0", "0=1GB"), ("mps", "cpu=1GB")]
)
def test_memory_limits_go_with_devices_that_they_name(device, text):
    with pytest.raises(UsageError, match="--max-memory"):
        LoadParams(device=device, max_memory=text)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_threads_are_a_positive_integer(value):
    with pytest.raises(UsageError, match="--threads"):
        LoadParams(threads=value)


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (1023, "1023 B"), (3482, "3.4 KiB"), (12_333_488, "11.8 MiB"), (2**30, "1.00 GiB"),
     (16_063_127_552, "14.96 GiB"), (-(2**20), "-1.0 MiB")],
)  # fmt: skip
def test_memory_is_told_in_a_unit_that_suits_it(size, said):
    assert memory_size(size) == said
