"""What records and reports have in common: shown briefly when printed, richly in a notebook, and as a
DataFrame. The drawing itself is in `render`, imported when something is shown."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from decodecli.errors import MissingLibraryError


def field_values(record: Any, names: Iterable[str] = ()) -> dict[str, Any]:
    """The attributes `names` of a record, all its fields where none is named, their values as they are:
    `dataclasses.asdict` without copying."""
    names = names or [field.name for field in fields(record)]
    return {name: getattr(record, name) for name in names}


def continuation_repr(prompt: str, text: str) -> str:
    """The end of a prompt and the beginning of what follows it, for a `repr`."""
    beginning = text if len(text) <= 60 else text[:59] + "…"
    return f"{prompt[-30:]!r} → {beginning!r}"


class Displayed:
    """A record that can be printed, shown in a notebook and turned into a DataFrame."""

    __slots__ = ()

    def flat(self) -> list[dict[str, Any]]:
        """The record as rows: what CSV, JSONL and pandas hold."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """A DataFrame of `flat()`.

        Raises:
            MissingLibraryError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingLibraryError(
                "to_pandas() needs pandas, which is not installed", "pip install pandas"
            ) from None
        return pandas.DataFrame(self.flat())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: print() shows a table, to_pandas() has everything>"

    def __str__(self) -> str:
        """A short table, at most some thirty lines."""
        return str(importlib.import_module("decodecli.render.short_text").short_text(self))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(importlib.import_module("decodecli.render.html.notebook").fragment(self))
