"""Rows as CSV that any reader reads back, and that no spreadsheet takes for formulas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_FORMULA = tuple("=+-@\t\r")  # what a spreadsheet evaluates, as it stands at the start of a cell
_PROTECTED = tuple(f"'{sign}" for sign in _FORMULA)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]inf", re.ASCII)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """RFC 4180 with a line feed after each row; None is an empty field.

    A field with a lone carriage return is quoted, which the `csv` module does not do. Text that starts
    with one of `= + - @`, a tab or a carriage return, and is no number, gets an apostrophe in front
    (owasp.org/www-community/attacks/CSV_Injection).
    """
    return "".join(",".join(map(_field, row)) + "\n" for row in rows)


def without_apostrophe(field: str) -> str:
    """A field of `csv_text` as it was before an apostrophe kept it from being a formula."""
    return field[1:] if field.startswith(_PROTECTED) else field


def _field(value: Any) -> str:
    text = "" if value is None else str(value)
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        text = "'" + text
    if any(sign in text for sign in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
