"""A section that fails is a row, and the others go on."""

from __future__ import annotations

import pytest

from benchmarks.report import Row
from benchmarks.run import _whatever_comes
from decodecli.errors import LoadError

FIRST = Row("decode", "tiny", "ours")


def rows_then(problem: BaseException):
    def rows():
        yield FIRST
        raise problem

    return lambda: _whatever_comes("decode", "tiny", rows)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (LoadError("it is cut short", "download it again"), "it failed: it is cut short"),
        (RuntimeError("cuBLAS is not there\nmore about it"), "it failed: cuBLAS is not there"),
        (ImportError("no vllm"), "it failed: no vllm"),
        (AssertionError(), "it failed: AssertionError"),
    ],
)
def test_whatever_a_section_raises_becomes_a_skipped_row(problem, said):
    first, last = rows_then(problem)()
    assert first is FIRST
    assert (last.section, last.subject, last.skipped) == ("decode", "tiny", said)


def test_an_interrupt_is_no_row():
    with pytest.raises(KeyboardInterrupt):
        list(rows_then(KeyboardInterrupt())())
