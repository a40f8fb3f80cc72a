"""One cell of a sweep, and the prompt it starts from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from decodecli.regex_limit import matches
from decodecli.settings import ChatParams, SamplingParams


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to continue.

    id: what names it in files and tables.
    expect: a right answer contains one of these strings, or matches the pattern; None: no answer is
        right or wrong.
    task: the group of prompts it belongs to, or None.
    chat: how it goes through the model's chat template; None where it does not.
    """

    text: str
    id: str
    expect: tuple[str, ...] | re.Pattern[str] | None = None
    task: str | None = None
    chat: ChatParams | None = None

    def as_dict(self) -> dict[str, Any]:
        """The prompt as a grid file and a JSONL file have it."""
        entry: dict[str, Any] = {"prompt": self.text, "id": self.id}
        if isinstance(self.expect, re.Pattern):
            entry["expect"] = {"regex": self.expect.pattern}
        elif self.expect is not None:
            entry["expect"] = list(self.expect)
        return entry if self.task is None else {**entry, "task": self.task}

    def answered_by(self, text: str) -> bool | None:
        """Whether `text` holds what is expected; None when nothing is.

        Raises:
            DecodecliError: the pattern takes too long.
        """
        if self.expect is None:
            return None
        if isinstance(self.expect, re.Pattern):
            return matches(self.expect, text)
        return any(expected in text for expected in self.expect)


@dataclass(frozen=True, slots=True)
class Cell:
    """One prompt at one setting with one seed.

    index: its number in the grid. params: with an integer seed. bos: as for `prefill`.
    """

    index: int
    prompt: Prompt
    params: SamplingParams
    bos: bool | None = None

    def value(self, name: str) -> Any:
        """The value of a decoding option; `bos` is one here."""
        return self.bos if name == "bos" else getattr(self.params, name)
