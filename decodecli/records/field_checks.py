"""Records from JSON that anybody may have edited: every field is checked."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from typing import Any

from decodecli.records.run import (
    Candidate,
    Cut,
    Explanation,
    ModelInfo,
    Watched,
    WhatIf,
    Without,
)


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
            if owner.__dataclass_fields__[name].metadata.get("optional"):
                continue
            raise ValueError(f"{name} is missing") from None
        except (TypeError, OverflowError):
            raise ValueError(f"{name} is out of range") from None
    return owner(**checked)


Check = Callable[[Any], Any]  # returns the value or raises TypeError


@cache
def _checks(owner: type[Any]) -> tuple[tuple[str, Check], ...]:
    """Every field of a record with what checks it: the class says itself which fields it has."""
    return tuple((field.name, _check_of(field.name, str(field.type))) for field in fields(owner))


def _check_of(name: str, annotation: str) -> Check:
    """What checks a field of that annotation; numbers also by the range that its name stands for."""
    if annotation.endswith(" | None"):
        check = _check_of(name, annotation.removesuffix(" | None"))
        return lambda value: None if value is None else check(value)
    if annotation.startswith("dict["):
        check = _check_of(name, annotation.removeprefix("dict[str, ").removesuffix("]"))
        return lambda value: {key: check(item) for key, item in _exactly(dict, value).items()}
    if annotation == "float":
        high = 0.01 if name.endswith("logprob") else math.inf  # a little above 0 is rounding
        return partial(_number, -0.01 if name in _AT_LEAST_0 else -math.inf, high)
    if annotation in _RECORDS:
        return partial(build_record, _RECORDS[annotation])
    if annotation.startswith("tuple[") and annotation not in _CHECKS:
        check = _check_of(name, annotation.removeprefix("tuple[").removesuffix(", ...]"))
        return lambda value: tuple([check(item) for item in _exactly(list, value)])
    return _CHECKS[annotation]


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value


def _number(low: float, high: float, value: Any) -> float:
    is_number = type(value) is float or type(value) is int
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise TypeError
    return float(value)


def _integers(value: Any) -> tuple[int, ...]:
    if type(value) is not list or min(array("i", value), default=0) < 0:
        raise TypeError
    return tuple(value)


def _numbers(value: Any) -> tuple[float, ...]:
    if type(value) is not list or not all(map(math.isfinite, array("d", value))):
        raise TypeError
    return tuple(value)


_RECORDS = {
    "ModelInfo": ModelInfo, "Candidate": Candidate, "WhatIf": WhatIf, "Watched": Watched,
    "Cut": Cut, "Without": Without, "Explanation": Explanation,
}  # fmt: skip
_CHECKS: dict[str, Check] = {
    "Any": lambda value: value,
    "int": _integer,
    "str": partial(_exactly, str),
    "bool": partial(_exactly, bool),
    "tuple[int, ...]": _integers,
    "tuple[float, ...]": _numbers,
}
_AT_LEAST_0 = ("cumulative", "entropy", "final_entropy", "seconds")
