"""Records from JSON that anybody may have edited: every field is checked."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any

from decodecli.records.run import Candidate, ModelInfo


def decode_line(line: bytes) -> Any:
    """The value that a line of strict JSON holds; raises ValueError, with what is wrong."""
    try:
        return _decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise ValueError("not valid JSON") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


def build_record(owner: type[Any], values: Any) -> Any:
    """A record of class `owner` from its JSON form, every field checked by its type and name. Keys
    without a field are left out.

    Raises:
        ValueError: a field is missing, of another type or out of range.
    """
    if not isinstance(values, dict):
        raise ValueError(f"a {owner.__name__} that is not an object")
    checked = {}
    for name, check in _checks(owner):  # type: ignore[arg-type]
        try:
            checked[name] = check(values[name])
        except KeyError:
            raise ValueError(f"{name} is missing") from None
        except (TypeError, OverflowError):
            raise ValueError(f"{name} is out of range") from None
    return owner(**checked)


# A check returns the value or raises TypeError.
def _of(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return check


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value


def _number(value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    is_number = type(value) is float or type(value) is int
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise TypeError
    return float(value)


def _logprob(value: Any) -> float:
    return _number(value, high=0.01)  # a little above 0 is rounding


def _at_least_0(value: Any) -> float:
    return _number(value, low=-0.01)


def _ids(value: Any) -> tuple[int, ...]:
    if type(value) is not list or min(array("i", value), default=0) < 0:
        raise TypeError
    return tuple(value)


def _numbers(value: Any) -> tuple[float, ...]:
    if type(value) is not list or not all(map(math.isfinite, array("d", value))):
        raise TypeError
    return tuple(value)


def _many(check: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: tuple([check(item) for item in _list(value)])


def _map(check: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: check(item) for name, item in _object(value).items()}


_string, _list, _object = _of(str), _of(list), _of(dict)
_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "cumulative": _at_least_0,
    "entropy": _at_least_0,
    "final_entropy": _at_least_0,
    "model": lambda value: build_record(ModelInfo, value),
    "candidates": _many(lambda value: build_record(Candidate, value)),
    "versions": _map(_string),
    "sources": _map(_string),
    "seconds": _map(_at_least_0),
}
_BY_TYPE: dict[str, Callable[[Any], Any]] = {
    "int": _whole,
    "float": _number,
    "str": _string,
    "dict[str, Any]": _object,
    "bool": _of(bool),
    "tuple[int, ...]": _ids,
    "tuple[float, ...]": _numbers,
    "tuple[str, ...]": _many(_string),
}


def _check_of(name: str, annotation: str) -> Callable[[Any], Any]:
    kind = annotation.removesuffix(" | None")
    check = _BY_NAME.get(name) or (_logprob if name.endswith("logprob") else _BY_TYPE[kind])
    if kind == annotation:
        return check
    return lambda value: None if value is None else check(value)


@cache
def _checks(owner: type[Any]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """Every field of a record with what checks it: the class says itself which fields it has."""
    return tuple((field.name, _check_of(field.name, str(field.type))) for field in fields(owner))
