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
from collections.abc import Sequence
from dataclasses import fields
from decimal import Decimal, localcontext
from typing import Any

from decodecli.config import FALSE, KEYS, TRUE, nearest
from decodecli.errors import UsageError
from decodecli.settings import SamplingParams, check_seed, flag_name

# Every axis, the outermost first: the seed changes fastest.
AXES: tuple[str, ...] = (
    *(item.name for item in fields(SamplingParams) if item.name != "seed"),
    "bos",
    "seed",
)
MOST_VALUES = 1_000_000
_HINT = "write a,b,c or lo..hi or lo:hi:step or log:lo:hi:n"
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)
_SMALLEST, _LARGEST = -324, 308  # powers of ten that a float can hold
_HIT = Decimal("1e-9")  # steps by which the last one may miss hi


def parse_axis(name: str, value: Any, *, repeats: bool = False) -> tuple[Any, ...]:
    """The values of an axis, each of them checked against the option's own range.

    Args:
        name: one of `AXES`.
        value: a value, an expression, or a list (or tuple) of both. `stop` takes a string or a list of
            strings for one value, a list of such lists for several. None is "auto" for `bos`.
        repeats: whether a value may stand twice, as in one of several paired axes.

    Parsed values parse to themselves.

    Raises:
        UsageError: it is no expression, a value is of the wrong kind, out of range or given twice, or
            there are too many; the message names the axis and the value.
    """
    found: list[Any]
    if name == "stop":
        found = _stops(value)
    elif name == "bos":
        found = [_bos(word) for item in _listed(value) for word in _words(name, item)]
    elif name in AXES:
        found = _numbers(name, _listed(value))
    else:
        raise unknown_axis(name)
    if not found:
        raise UsageError(f"{flag_name(name)} has no values", _HINT)
    if not repeats and len(set(found)) < len(found):
        raise _twice(name, found)
    return tuple(found)


def unknown_axis(name: str) -> UsageError:
    """The error for an option that is no axis, with the nearest that is one."""
    near = nearest(name.replace("-", "_"), AXES)
    hint = f"did you mean {near}?" if near else f"axes are: {', '.join(AXES)}"
    return UsageError(f"there is no decoding option {shortened(name)} to sweep over", hint)


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple | range) else (value,)


def _twice(name: str, values: Sequence[Any]) -> UsageError:
    again, seen = None, set()
    for again in values:
        if again in seen:
            break
        seen.add(again)
    return UsageError(
        f"{flag_name(name)} has the value {_spelt(again)} twice",
        "give each value once"
        + ("; several runs of a setting come from --seeds" if name != "seed" else ""),
    )


def _spelt(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "auto", True: "on", False: "off"}[value]
    return shortened(value if not isinstance(value, tuple) else list(value))


def _words(name: str, item: Any) -> list[Any]:
    """The parts of an expression; what is no text is itself."""
    if not isinstance(item, str):
        return [item]
    words = [word.strip() for word in item.split(",")]
    if not all(words):
        raise UsageError(f"{flag_name(name)} has an empty value: {shortened(item)}", _HINT)
    return words


def _bos(word: Any) -> bool | None:
    if word is None or isinstance(word, bool):
        return word
    text = word.lower() if isinstance(word, str) else ""
    if text not in (*TRUE, *FALSE, "auto"):
        raise UsageError(
            f"--bos must be on, off or auto, got {shortened(word)}",
            "auto is as the tokenizer does",
        )
    return None if text == "auto" else text in TRUE


def _stops(value: Any) -> list[tuple[str, ...]]:
    several = isinstance(value, list | tuple) and any(isinstance(v, list | tuple) for v in value)
    return [SamplingParams(stop=item).stop for item in (value if several else [value])]


def _numbers(name: str, items: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if isinstance(item, str):
            for word in _words(name, item):
                found += _expanded(name, word)
        else:
            found.append(item)
        if len(found) > MOST_VALUES:
            raise _too_many(name, len(found))
    return _checked(name, found)


def _checked(name: str, values: list[Any]) -> list[Any]:
    """Values as `SamplingParams` takes them. Ranges have no holes: the outermost speak for the rest."""
    whole = KEYS[name] == "int"
    plain = all(type(v) is int or (type(v) is float and v == v and not whole) for v in values)
    if plain and values:
        for value in {min(values): None, max(values): None}:
            _check(name, value)
        return values if whole else [float(value) for value in values]
    return [_check(name, value) for value in values]


def _check(name: str, value: Any) -> Any:
    if name == "seed":  # None would be one to draw
        return check_seed(value)
    return getattr(SamplingParams(**{name: value}), name)


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


def _plain(name: str, number: Decimal) -> int | float:
    return int(number) if KEYS[name] == "int" else float(number)


def _number(name: str, text: str, word: str) -> Decimal:
    """One number of the part `word`."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"{flag_name(name)} cannot be read: {shortened(word)}", _HINT)
    if KEYS[name] == "int" and not _WHOLE.fullmatch(text):
        raise UsageError(f"{flag_name(name)} must be an integer, got {shortened(text)}", _HINT)
    number = Decimal(text)
    if number and not _SMALLEST <= number.adjusted() <= _LARGEST:
        raise UsageError(f"{flag_name(name)} {shortened(text)} is beyond all bounds", _HINT)
    return number


def _count(name: str, word: str) -> list[Any]:
    """lo..hi."""
    ends = [end.strip() for end in word.split("..")]
    if len(ends) != 2 or not all(_NUMBER.fullmatch(end) for end in ends):
        raise UsageError(f"{flag_name(name)} cannot be read: {shortened(word)}", _HINT)
    if not all(_WHOLE.fullmatch(end) for end in ends):
        raise UsageError(
            f"{flag_name(name)} {shortened(word)}: lo..hi counts whole numbers",
            "as in 0..4"
            if KEYS[name] == "int"
            else f"with a step of your own: {ends[0]}:{ends[1]}:0.1",
        )
    low, high = (int(_number(name, end, word)) for end in ends)
    if low > high:
        raise UsageError(
            f"{flag_name(name)} {shortened(word)} has no values: lo is above hi",
            f"write {high}..{low}",
        )
    if high - low >= MOST_VALUES:
        raise _too_many(name, high - low + 1)
    return (
        list(range(low, high + 1)) if KEYS[name] == "int" else [*map(float, range(low, high + 1))]
    )


def _steps(name: str, word: str, parts: list[str]) -> list[Any]:
    """lo:hi:step, up or down."""
    if len(parts) != 3:
        raise UsageError(f"{flag_name(name)} {shortened(word)}: lo:hi:step has three parts", _HINT)
    low, high, step = (_number(name, part, word) for part in parts)
    if not step or (high - low) * step < 0:
        raise UsageError(
            f"{flag_name(name)} {shortened(word)}: the step does not lead from lo to hi",
            "up as in 0.2:1:0.2, down as in 1:0.2:-0.2",
        )
    with localcontext(prec=50):
        last = int((high - low) / step + _HIT)
        if last >= MOST_VALUES:
            raise _too_many(name, last + 1)
        values = [low + place * step for place in range(last + 1)]
        if abs(high - values[-1]) <= abs(step) * _HIT:
            values[-1] = high
    return [_plain(name, value) for value in values]


def _log(name: str, word: str, parts: list[str]) -> list[Any]:
    """log:lo:hi:n."""
    if len(parts) != 3 or not _WHOLE.fullmatch(parts[2].strip()):
        raise UsageError(
            f"{flag_name(name)} {shortened(word)}: log:lo:hi:n has two ends and how many values",
            "for example log:0.1:10:5",
        )
    low, high = (_plain(name, _number(name, part, word)) for part in parts[:2])
    count = int(_number(name, parts[2], word))
    if low <= 0 or high <= 0:
        raise UsageError(f"{flag_name(name)} {shortened(word)}: the ends must be above 0", _HINT)
    if count < 2:
        raise UsageError(
            f"{flag_name(name)} {shortened(word)} must have at least 2 values", "both ends count"
        )
    if count > MOST_VALUES:
        raise _too_many(name, count)
    ways = (place / (count - 1) for place in range(1, count - 1))
    # 14 digits: what the powers leave beyond them is their rounding, and 0.1 should be 0.1
    between = [float(f"{low ** (1 - way) * high**way:.14g}") for way in ways]
    if KEYS[name] != "int":
        return [low, *between, high]
    whole = [low, *map(round, between), high]
    if len(set(whole)) < len(whole):
        raise UsageError(
            f"{flag_name(name)} {shortened(word)} has no {count:,} different whole numbers",
            "ask for fewer",
        )
    return whole


def _too_many(name: str, count: int) -> UsageError:
    many = f"{count:,}" if count < 10**15 else "far too many"
    return UsageError(
        f"{flag_name(name)} has {many} values; at most {MOST_VALUES:,} are possible",
        "take a larger step or a smaller range",
    )
