"""Where the prompts of a sweep come from: arguments, text files, JSONL files, grids.

A text file has a prompt a line; blank lines are skipped, other spaces are kept. A JSONL file has an
object a line with `prompt` and, if wanted, `id`, `task`, and `expect`: what a right answer contains,
case-sensitive: a string, a list of strings, or {"regex": "…"} for a regular expression (Python's; it may
begin with (?i)). A string is never taken for an expression, however it looks.

A prompt without an id is called p0, p1, … by its place among all. A text may stand twice only under ids
of its own, since the same prompt twice gives the same cells twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from decodecli.config import nearest
from decodecli.errors import PromptError, UsageError
from decodecli.regex_limit import compile_pattern
from decodecli.sweeps.cells import Prompt
from decodecli.text_files import read_file

Expected = tuple[str, ...] | re.Pattern[str] | None
_TABLES = (".csv", ".tsv", ".xlsx", ".ods", ".parquet")
_KEYS = ("prompt", "id", "expect", "task")
_EXAMPLE = 'write lines like {"prompt": "The capital of Japan is", "expect": "Tokyo"}'
_EXPECT = 'expect is a string, a list of strings, or {"regex": "…"}'


class PromptEntry(NamedTuple):
    """A prompt on its way to an id of its own: "" where it was given none. where: for messages."""

    prompt: Prompt
    where: str


def gather_prompts(texts: Sequence[str] = (), file: str | Path | None = None) -> tuple[Prompt, ...]:
    """The prompts of the command line, then those of a file.

    Raises:
        UsageError: as `read_prompts`; or one stands twice.
        PromptError: an argument is not UTF-8.
    """
    entries = []
    for number, text in enumerate(texts, start=1):
        if not _is_unicode(text):
            raise PromptError(f"prompt {number} is not UTF-8", "type it in a terminal set to UTF-8")
        entries.append(text_entry(text, f"prompt {number}"))
    if file is not None:
        entries += _parsed(*_contents(file))
    return with_ids(entries)


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of a file: JSONL by its suffix (`.jsonl`) or, unless it is a `.txt`, by its first line.

    Raises:
        UsageError: the file cannot be read, has no prompts, or a line is not what it should be: not
            UTF-8, no JSON object, an unknown key, a value of the wrong kind, a bad regular expression,
            an id or text that was there before; the message names file and line. Or it is a table.
    """
    return with_ids(_parsed(*_contents(path)))


def parse_prompts(data: bytes, name: str) -> tuple[Prompt, ...]:
    """The same from bytes; `name` is the file's, for its suffix and for messages."""
    return with_ids(_parsed(data, name))


def text_entry(text: str, where: str) -> PromptEntry:
    """A prompt that is nothing but a text."""
    return PromptEntry(Prompt(text, ""), where)


def with_ids(entries: Sequence[PromptEntry]) -> tuple[Prompt, ...]:
    """The prompts with their ids.

    Raises:
        UsageError: an id stands twice, or a text without ids of its own.
    """
    by_id: dict[str, PromptEntry] = {}
    for entry in entries:
        name = entry.prompt.id
        if name and by_id.setdefault(name, entry) is not entry:
            raise UsageError(
                f"{entry.where}: the id {_short(name)} is taken by {by_id[name].where}",
                "give every prompt an id of its own",
            )
    by_text: dict[str, PromptEntry] = {}
    for entry in entries:
        first = by_text.setdefault(entry.prompt.text, entry)
        if first is not entry and not (first.prompt.id and entry.prompt.id):
            raise UsageError(
                f"{entry.where}: {_short(entry.prompt.text)} is the same as {first.where}",
                "give each prompt once; several runs of it come from --seeds",
            )
    prompts = []
    for position, (prompt, _) in enumerate(entries):
        name = prompt.id or f"p{position}"
        while not prompt.id and name in by_id:  # somebody's own id
            name += "+"
        prompts.append(replace(prompt, id=name))
    return tuple(prompts)


def _contents(path: str | Path) -> tuple[bytes, str]:
    return read_file(path, f"the prompt file {path}"), Path(path).name


def _parsed(data: bytes, name: str) -> list[PromptEntry]:
    suffix = Path(name).suffix.lower()
    if suffix in _TABLES:
        raise UsageError(
            f"{name} is a table, and prompts come a line each or as JSONL",
            "keep the texts alone, a line each, in a .txt; or write JSONL",
        )
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}, line {line} is not UTF-8", "save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(
            f"{name}, line {line} holds a NUL character", "save the file as text in UTF-8"
        )
    # Only the newline ends a line, with a carriage return before it or not.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not filled:
        raise UsageError(f"{name} has no prompts", "write one a line, or JSONL")
    is_json = suffix in (".jsonl", ".ndjson", ".json") or (
        suffix != ".txt" and re.match(r'\s*\{\s*["}]', filled[0][1]) is not None
    )
    entry = _from_json if is_json else text_entry
    return [entry(line, f"{name}, line {number}") for number, line in filled]


def _from_json(line: str, where: str) -> PromptEntry:
    try:
        value = json.loads(line, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} (column {error.colno})"
        raise UsageError(f"{where} {problem}", _EXAMPLE) from None
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from None
    except (ValueError, RecursionError):  # a number of thousands of digits; thousands of brackets
        raise UsageError(f"{where} is not JSON that can be read", _EXAMPLE) from None
    return prompt_from(value, where)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise UsageError(f"the key {_short(key)} stands twice", "give each key once")
        values[key] = value
    return values


def prompt_from(item: Any, where: str) -> PromptEntry:
    """A prompt from an object with the keys `prompt`, `id`, `expect` and `task`.

    Raises:
        UsageError: it is no such object; the message begins with `where`.
    """
    if not isinstance(item, dict):
        raise UsageError(f"{where} is no object", _EXAMPLE)
    text, unknown = item.get("prompt"), [key for key in item if key not in _KEYS]
    if text is None:
        but = f" but an unknown key, {_short(unknown[0])}" if unknown else ""
        raise UsageError(f"{where} has no prompt{but}", _EXAMPLE)
    if unknown:
        near = nearest(unknown[0], _KEYS)
        hint = f"did you mean {near}?" if near else f"keys are: {', '.join(_KEYS)}"
        raise UsageError(f"{where} has an unknown key: {_short(unknown[0])}", hint)
    name, task = (item.get(key) for key in ("id", "task"))
    prompt = Prompt(
        _string("prompt", text, where, empty=True),
        "" if name is None else _string("id", name, where),
        _expected(item.get("expect"), where),
        None if task is None else _string("task", task, where),
    )
    return PromptEntry(prompt, where)


def _string(key: str, value: Any, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise UsageError(
            f"{where}: {key} must be a string, got {_short(value)}", "put it in quotes"
        )
    if not value and not empty:
        raise UsageError(f"{where}: {key} is empty", f"leave {key} out instead")
    if not _is_unicode(value):
        raise UsageError(f"{where}: {key} holds half a character", "a \\ud8… needs its other half")
    return value


def _expected(value: Any, where: str) -> Expected:
    if value is None:
        return None
    if isinstance(value, str):
        return (_string("expect", value, where),)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple(_string("expect", item, where) for item in value)
    if not isinstance(value, dict) or list(value) != ["regex"]:
        raise UsageError(f"{where}: expect cannot be {_short(value)}", _EXPECT)
    pattern = _string("regex", value["regex"], where)
    try:
        return compile_pattern(pattern)
    except ValueError as error:
        raise UsageError(
            f"{where}: {_short(pattern)} is no regular expression: {error}",
            "a backslash before . ( ) [ ] * + ? takes them as they are",
        ) from None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
