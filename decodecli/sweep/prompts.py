"""Where the prompts of a sweep come from: arguments, text files, JSONL files, grids.

A text file has a prompt a line; blank lines are skipped, other spaces are kept. A JSONL file has an
object a line with `prompt` and, if wanted, `id`, `task`, and `expect`: what a right answer contains,
case-sensitive: a string, a list of strings, or {"regex": "…"} for a regular expression (Python's; it may
begin with (?i)). A string is never taken for an expression, however it looks.

A prompt without an id is called p0, p1, … by its place among all. A text may stand twice only under ids
of its own, since the same prompt twice gives the same cells twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decodecli.sweep.cells import Prompt


def gather_prompts(typed: Sequence[str] = (), file: str | Path | None = None) -> tuple[Prompt, ...]:
    """The prompts typed as arguments, then those of a file.

    Raises:
        UsageError: as `read_prompts`; or one stands twice.
        PromptError: an argument is not UTF-8.
    """
    raise NotImplementedError


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of a file: JSONL by its suffix (`.jsonl`) or, unless it is a `.txt`, by its first line.

    Raises:
        UsageError: the file cannot be read, has no prompts, or a line is not what it should be: not
            UTF-8, no JSON object, an unknown key, a value of the wrong kind, a bad regular expression,
            an id or text that was there before; the message names file and line.
    """
    raise NotImplementedError


def parse_prompts(data: bytes, name: str) -> tuple[Prompt, ...]:
    """The same from bytes; `name` is the file's, for its suffix and for messages."""
    raise NotImplementedError
