"""Value expressions: what is written for a decoding option → the values that it takes in a sweep.

    a,b,c        these
    lo..hi       whole numbers, both ends
    lo:hi:step   hi too where the steps hit it; decimal, so that 0.1:0.5:0.1 holds 0.3 exactly
    log:lo:hi:n  n values, each the same multiple of the one before, both ends exact

and any of them joined by commas: `0,0.5:2:0.5`. `greedy` is temperature 0. `bos` takes on, off and auto.
Options that are whole numbers take whole numbers; what `log` puts between the ends is rounded for them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from decimal import Decimal, localcontext
from functools import partial
from typing import Any

from decodecli.config import FALSE, KEYS, TRUE, nearest
from decodecli.errors import UsageError
from decodecli.ranges import LISTS, check_seed, check_value, flag_name
from decodecli.settings import SamplingParams

# Every axis, the outermost first: the seed changes fastest.
AXES: tuple[str, ...] = (
    *(item.name for item in fields(SamplingParams) if item.name != "seed"),
    "bos",
    "seed",
)
# The axes that the first release did not have, and their neutral values: where one is neutral, a grid's
# fingerprint leaves it out, so that a folder from before goes on.
_FIRST_AXES = (
    "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "repetition_penalty", "no_repeat_ngram_size", "stop", "seed",
)  # fmt: skip
LATER_AXES: dict[str, Any] = {
    item.name: item.default for item in fields(SamplingParams) if item.name not in _FIRST_AXES
}
MOST_VALUES = 1_000_000
_BOS = {"auto": None, **dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}
_HINT = "write a,b,c or lo..hi or lo:hi:step or log:lo:hi:n"
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)
_SMALLEST, _LARGEST = -324, 308  # powers of ten that a float can hold
_HIT = Decimal("1e-9")  # steps by which the last one may miss hi


def parse_axis(name: str, value: Any, *, repeats: bool = False) -> tuple[Any, ...]:
    """The values of an axis, each of them checked against the option's own range.

    Args:
        name: one of `AXES`.
        value: a value, an expression, or a list (or tuple) of both. `stop` and its like take a
            string or a list of strings for one value, a list of such lists for several. None is
            "auto" for `bos`.
        repeats: whether a value may stand twice, as in one of several zipped axes.

    Parsed values parse to themselves.

    Raises:
        UsageError: it is no expression, a value is of the wrong kind, out of range or given twice, or
            there are too many; the message names the axis and the value.
    """
    if name not in AXES:
        raise unknown_axis(name)
    items: Sequence[Any] = value if isinstance(value, list | tuple | range) else (value,)
    values: list[Any]
    if name in LISTS:
        several = any(isinstance(item, list | tuple) for item in items)
        values = [check_value(name, item) for item in (items if several else [value])]
    elif name in ("order", "constraint"):
        values = [check_value(name, item) for item in items]
    elif name == "bos":
        values = []
        for word in (word for item in items for word in _words(name, item)):
            text = word.lower() if isinstance(word, str) else ""
            if word is not None and not isinstance(word, bool) and text not in _BOS:
                problem = f"must be on, off or auto, got {shortened(word)}"
                raise _error("bos", problem, "auto is as the tokenizer does")
            values.append(_BOS[text] if text else word)
    else:
        values = _numbers(name, items)
    if not values:
        raise _error(name, "has no values")
    if not repeats and len(set(values)) < len(values):
        value, _ = Counter(values).most_common(1)[0]
        runs = "; several runs of a setting come from --seeds" if name != "seed" else ""
        raise _error(name, f"has the value {_written(value)} twice", f"give each value once{runs}")
    return tuple(values)


def unknown_axis(name: str) -> UsageError:
    """The error for an option that is no axis, with the nearest that is one."""
    near = nearest(name.replace("-", "_"), AXES)
    hint = (
        f"did you mean {near}?"
        if near
        else f"axes are {', '.join(AXES[:4])}, …: see decodecli sweep --help"
    )
    return UsageError(f"there is no decoding option {shortened(name)} to sweep over", hint)


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _error(name: str, problem: str, hint: str = _HINT) -> UsageError:
    return UsageError(f"{flag_name(name)} {problem}", hint)


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "auto", True: "on", False: "off"}[value]
    return shortened(list(value) if isinstance(value, tuple) else value)


def _words(name: str, item: Any) -> list[Any]:
    """The parts of an expression; what is no text is itself."""
    if not isinstance(item, str):
        return [item]
    words = [word.strip() for word in item.split(",")]
    if not all(words):
        raise _error(name, f"has an empty value: {shortened(item)}")
    return words


def _numbers(name: str, items: Sequence[Any]) -> list[Any]:
    """The values of a numeric axis, as `SamplingParams` takes them."""
    values: list[Any] = []
    for item in items:
        for word in _words(name, item):
            values += _expanded(name, word) if isinstance(word, str) else [word]
        if len(values) > MOST_VALUES:
            raise _too_many(name, len(values))
    # For `check_value`, None would be a seed to draw.
    check = check_seed if name == "seed" else partial(check_value, name)
    integer = KEYS[name] == "int"
    plain = all(type(v) is int or (type(v) is float and v == v and not integer) for v in values)
    if not plain or not values:
        return [check(value) for value in values]
    for value in {min(values), max(values)}:  # ranges have no holes: these speak for the rest
        check(value)
    return values if integer else [float(value) for value in values]


def _expanded(name: str, word: str) -> list[Any]:
    """The values of one part of an expression; whole numbers are int, others float."""
    if word == "greedy" and name == "temperature":
        return [0.0]
    kind, *rest = word.split(":")
    if kind == "log":
        return _log(name, word, rest)
    if rest:
        return _steps(name, word, [kind, *rest])
    if ".." in word:
        return _count(name, word)
    return [_plain(name, _number(name, word, word))]


def _plain(name: str, number: Decimal | int) -> int | float:
    return int(number) if KEYS[name] == "int" else float(number)


def _number(name: str, text: str, word: str) -> Decimal:
    """One number of the part `word`."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise _error(name, f"cannot be read: {shortened(word)}")
    if KEYS[name] == "int" and not _WHOLE.fullmatch(text):
        raise _error(name, f"must be an integer, got {shortened(text)}")
    number = Decimal(text)
    if number and not _SMALLEST <= number.adjusted() <= _LARGEST:
        raise _error(name, f"{shortened(text)} is beyond all bounds")
    return number


def _count(name: str, word: str) -> list[Any]:
    """lo..hi."""
    ends = [end.strip() for end in word.split("..")]
    if len(ends) != 2 or not all(map(_NUMBER.fullmatch, ends)):
        raise _error(name, f"cannot be read: {shortened(word)}")
    if not all(map(_WHOLE.fullmatch, ends)):
        any_step = f"with a step of your own: {ends[0]}:{ends[1]}:0.1"
        hint = "as in 0..4" if KEYS[name] == "int" else any_step
        raise _error(name, f"{shortened(word)}: lo..hi counts whole numbers", hint)
    low, high = (int(_number(name, end, word)) for end in ends)
    if low > high:
        problem = f"{shortened(word)} has no values: {low} is above {high}"
        raise _error(name, problem, f"write {high}..{low}")
    if high - low >= MOST_VALUES:
        raise _too_many(name, high - low + 1)
    return [_plain(name, value) for value in range(low, high + 1)]


def _steps(name: str, word: str, parts: list[str]) -> list[Any]:
    """lo:hi:step, up or down."""
    if len(parts) != 3:
        raise _error(name, f"{shortened(word)}: lo:hi:step has three parts")
    low, high, step = (_number(name, part, word) for part in parts)
    if not step or (high - low) * step < 0:
        problem = f"{shortened(word)}: the step does not lead from lo to hi"
        raise _error(name, problem, "up as in 0.2:1:0.2, down as in 1:0.2:-0.2")
    with localcontext(prec=50):
        last = int((high - low) / step + _HIT)
        if last >= MOST_VALUES:
            raise _too_many(name, last + 1)
        values = [low + number * step for number in range(last + 1)]
        if abs(high - values[-1]) <= abs(step) * _HIT:
            values[-1] = high
    return [_plain(name, value) for value in values]


def _log(name: str, word: str, parts: list[str]) -> list[Any]:
    """log:lo:hi:n."""
    if len(parts) != 3 or not _WHOLE.fullmatch(parts[2].strip()):
        problem = f"{shortened(word)}: log:lo:hi:n has two ends and how many values"
        raise _error(name, problem, "for example log:0.1:10:5")
    low, high = (_plain(name, _number(name, part, word)) for part in parts[:2])
    count = int(_number(name, parts[2], word))
    if low <= 0 or high <= 0:
        raise _error(name, f"{shortened(word)}: the ends must be above 0")
    if count < 2:
        raise _error(name, f"{shortened(word)} must have at least 2 values", "both ends count")
    if count > MOST_VALUES:
        raise _too_many(name, count)
    shares = (number / (count - 1) for number in range(1, count - 1))
    # 14 digits: what the powers leave beyond them is their rounding, and 0.1 should be 0.1
    between = [float(f"{low ** (1 - share) * high**share:.14g}") for share in shares]
    if KEYS[name] != "int":
        return [low, *between, high]
    values = [low, *map(round, between), high]
    if len(set(values)) < len(values):
        problem = f"{shortened(word)} has no {count:,} different whole numbers"
        raise _error(name, problem, "ask for fewer")
    return values


def _too_many(name: str, count: int) -> UsageError:
    many = f"{count:,}" if count < 10**15 else "far too many"
    problem = f"has {many} values; at most {MOST_VALUES:,} are possible"
    return _error(name, problem, "take a larger step or a smaller range")
