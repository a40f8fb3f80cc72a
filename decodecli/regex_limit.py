"""Regular expressions that a person or a file brings along, searched within a limit of time: Python's own
`re` may backtrack for ever, and cannot be stopped."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

from decodecli.errors import DecodecliError

SECONDS = 3.0  # of one search; a sound expression takes a millionth of that
_too_slow: set[str] = set()


def compile_pattern(written: str) -> re.Pattern[str]:
    """The expression as Python's `re` takes it.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pattern = re.compile(written)
        _stoppable(written)
        return pattern
    except Exception as error:  # those of two libraries, RecursionError, OverflowError
        raise ValueError(str(error)) from None


def matches(pattern: re.Pattern[str], text: str) -> bool:
    """Whether the expression is found in `text`.

    Raises:
        DecodecliError: that takes longer than `SECONDS`, or did before in this process.
    """
    written = pattern.pattern
    try:
        if written not in _too_slow:
            return _stoppable(written).search(text, timeout=SECONDS) is not None
    except TimeoutError:
        _too_slow.add(written)
    raise DecodecliError(
        f"the regular expression {written[:60]} takes longer than {SECONDS:.0f} s",
        "write it without repeats of repeats, such as (a+)+ or (a|a)*",
    )


@lru_cache(maxsize=4096)
def _stoppable(written: str) -> Any:
    """The same expression for the `regex` package, which understands all of `re` and can be stopped."""
    import regex

    return regex.compile(written, regex.V0)
