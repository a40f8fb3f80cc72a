"""Values as TOML spells them, each on one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def toml_lines(values: Mapping[str, Any]) -> str:
    """A line a value; those that are None are left out."""
    return "".join(f"{k} = {to_toml(v)}\n" for k, v in values.items() if v is not None)


def to_toml(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, str):  # JSON's escapes are TOML's, which wants one more
        text = value.encode("utf-8", "replace").decode()  # a path may hold what is no character
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value)
