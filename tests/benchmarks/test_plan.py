"""What a plan measures, and what it refuses."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as command
from benchmarks.plan import MODEL, SECTIONS, Plan, dtype_and_scheme
from benchmarks.shapes import SHAPES
from benchmarks.subjects import fitting
from decodecli.errors import LoadError, UsageError

GIB = 2**30


def test_the_default_is_every_section_on_three_shapes_in_three_precisions():
    plan = Plan()
    assert plan.sections() == tuple(SECTIONS)
    assert plan.models("cpu") == ("builtin", "gpt2", "llama-1b")
    assert plan.models("cuda:0") == ("builtin", "llama-8b")
    assert plan.precisions("cpu") == ("float32", "bfloat16", "nf4")
    assert plan.precisions("cuda:0") == ("bfloat16", "nf4")
    assert set(MODEL) < set(SECTIONS)


def test_quick_is_one_repetition_on_the_built_in_model():
    plan = Plan(quick=True, repeat=9)
    assert plan.repetitions == 1
    assert plan.models("cpu") == ("builtin",)
    assert plan.precisions("cpu") == ("float32",)


def test_types_and_schemes_are_combined_each_with_each():
    plan = Plan(dtypes=("float32", "bfloat16"), quantize=("none", "nf4"))
    assert plan.precisions("cpu") == ("float32", "bfloat16", "nf4/float32", "nf4")
    assert Plan(quantize=("nf4", "int8")).precisions("cpu") == ("nf4", "int8")
    assert Plan(dtypes=("float16",)).precisions("cpu") == ("float16",)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", ("float32", "none")),
        ("nf4", ("bfloat16", "nf4")),
        ("nf4/float16", ("float16", "nf4")),
    ],
)
def test_a_precision_says_its_type_and_its_scheme(precision, expected):
    assert dtype_and_scheme(precision) == expected


def test_sections_run_in_their_own_order_whatever_is_asked_first():
    assert Plan(only=("start", "decode")).sections() == ("decode", "start")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"shapes": ("gpt5",)}, "--shape"),
        ({"shapes": ("gpt2",), "model": "x"}, "--model"),
        ({"dtypes": ("int3",)}, "--dtype"),
        ({"dtypes": ("auto",)}, "--dtype"),
        ({"quantize": ("q4",)}, "--quantize"),
        ({"device": "tpu"}, "--device"),
        ({"only": ("everything",)}, "--only"),
        ({"repeat": 0}, "--repeat"),
        ({"tokens": 3}, "--tokens"),
        ({"threads": 0}, "--threads"),
    ],
)
def test_values_out_of_range_are_refused(values, word):
    with pytest.raises(UsageError, match=word):
        Plan(**values)


def test_a_shape_that_does_not_fit_is_refused_with_both_sizes():
    with pytest.raises(LoadError, match=r"llama-8b in nf4 needs .* GiB, and 4\.0 GiB are free"):
        fitting("llama-8b", ("float32", "bfloat16", "nf4"), "cpu", free=4 * GIB)


def test_precisions_that_do_not_fit_are_left_out_when_another_does():
    found = fitting("llama-8b", ("float32", "nf4"), "cpu", free=12 * GIB)
    assert "needs" in found["float32"]
    assert found["nf4"] == ""
    assert fitting("builtin", ("float32",), "cpu", free=1) == {"float32": ""}


def test_a_quantized_shape_needs_its_head_in_sixteen_bits():
    shape = SHAPES["llama-8b"]
    assert shape.bytes_needed("bfloat16") == 2 * shape.parameters
    body = shape.parameters - shape.head
    assert shape.bytes_needed("nf4") == int(body * 0.5625) + 2 * shape.head


def test_the_command_that_repeats_a_plan_names_every_choice():
    plan = Plan(
        shapes=("gpt2", "builtin"), dtypes=("float16",), quantize=("nf4",), device="cpu",
        threads=2, tokens=16, repeat=3, only=("decode",), quick=True,
    )  # fmt: skip
    assert " ".join(command.repeating(plan)) == (
        "python -m benchmarks --shape gpt2 --shape builtin --dtype float16 --quantize nf4 "
        "--only decode --device cpu --threads 2 --tokens 16 --repeat 3 --quick"
    )
    assert command.repeating(Plan()) == ("python", "-m", "benchmarks")


def test_the_options_offer_what_the_plan_knows():
    from benchmarks import shapes

    assert list(command._SHAPES) == list(shapes.NAMES)
    assert list(command._SECTIONS) == list(SECTIONS)
