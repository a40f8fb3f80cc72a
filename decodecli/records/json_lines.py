"""Records as strict JSON lines; a step's as fast as it is decoded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import Any

from decodecli.records.run import Candidate, Step

# Controls beyond those that JSON escapes anyway, line separators, and bidirectional overrides.
_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def to_json_line(record: dict[str, Any]) -> str:
    """One record as strict JSON on one line, non-ASCII text as it is, except for what would steer a
    terminal that shows the line: that is escaped."""
    return _harmless(_encoded(record))


_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _harmless(line: str) -> str:
    if line.isascii() and "\x7f" not in line:
        return line
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def step_json_line(step: Step) -> str:
    """`to_json_line(step.as_dict())` in half the time: a run writes one a token.

    What a caller put into a step that is no int, float or string goes the long way, as do numbers that
    are not finite, which are refused there.
    """
    if step.what_if or step.watch or step.explain or step.constrained_mass is not None:
        return to_json_line(step.as_dict())
    try:
        return _step_json(step)
    except (TypeError, ValueError):
        return to_json_line(step.as_dict())


def _compiled(owner: type, start: str = "") -> Callable[[Any], str]:
    """A function that spells a record as JSON: one f-string of its fields, compiled as `dataclasses`
    compiles `__init__`. It raises TypeError or ValueError for a value that is not as annotated."""
    names = {item.name: str(item.type) for item in fields(owner) if not item.metadata}
    numbers = [f"(r.{name} or 0.0)" for name, kind in names.items() if kind.startswith("float")]
    parts = [f'"{name}":{{{_SPELLED[kind].format("r." + name)}}}' for name, kind in names.items()]
    line = f"f'{{{{{start}{','.join(parts)}}}}}'"
    finite = f"(total := {' + '.join(numbers)}) - total == 0"
    return eval(f"lambda r: {line} if {finite} else _refuse()")


def _refuse() -> str:
    raise ValueError("not JSON")


@lru_cache(maxsize=4096)
def _string(text: str) -> str:
    return _harmless(_encoded(text))


_int, _float = int.__repr__, float.__repr__  # and nothing but an int or a float
_SPELLED = {
    "int": "_int({0})",
    "float": "_float({0})",
    "str": "_string({0})",
    "float | None": '"null" if {0} is None else _float({0})',
    "str | None": '"null" if {0} is None else _string({0})',
    "tuple[Candidate, ...]": '"[" + ",".join([_candidate_json(c) for c in {0}]) + "]"',
}
_candidate_json = _compiled(Candidate)
_step_json = _compiled(Step, '"type":"step",')
