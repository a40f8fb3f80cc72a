"""Files that a person names, and standard input: read within bounds, and parsed, with a line for each
kind of trouble."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, Any

from decodecli.errors import PromptError, UsageError

MAX_PROMPT_BYTES = 8 << 20  # some two million tokens, whose encoding takes a gigabyte
MAX_DATA_BYTES = 64 << 20


def read_file(name: str | Path, what: str, limit: int = MAX_DATA_BYTES) -> bytes:
    """The bytes of a regular file, a pipe or a terminal, at most `limit` of them.

    Args:
        what: how messages call it, as `--file notes.txt`.

    Raises:
        UsageError: it is not there, cannot be read, or is something else (a folder, a device, a socket).
        PromptError: it holds more.
    """
    path = os.path.expanduser(name)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            with open(path, "rb") as file:
                if not stat.S_ISCHR(mode) or file.isatty():
                    return read_stream(file, what, limit)
    except FileNotFoundError:
        raise UsageError(f"{what}: there is no such file", "check the path") from None
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{what} cannot be read: {why}", "check the path") from None
    kind = "a folder" if stat.S_ISDIR(mode) else "not a file"
    raise UsageError(f"{what} is {kind}", "give a text file, a pipe or a terminal")


def read_stream(stream: IO[bytes], what: str, limit: int = MAX_DATA_BYTES) -> bytes:
    """All that a stream holds, if that is no more than `limit` bytes; an endless one ends there.

    Raises:
        PromptError: it holds more.
    """
    data = stream.read(limit + 1)
    check_size(len(data), what, limit)
    return data


def check_size(size: int, what: str, limit: int = MAX_PROMPT_BYTES) -> None:
    """Refuse a text of more than `limit` bytes by a `PromptError`."""
    if size > limit:
        raise PromptError(f"{what} is larger than {limit >> 20} MiB", "split it, or shorten it")


def parse_json(text: str, what: str, hint: str) -> Any:
    """`json.loads`, whose errors end as a `UsageError`, too deep a nesting among them."""
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not valid JSON: {_why(error)}", hint) from None


def parse_toml(text: str | bytes, what: str, hint: str) -> dict[str, Any]:
    """`tomllib.loads`, of UTF-8 too; errors as those of `parse_json`."""
    import tomllib

    try:
        return tomllib.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise UsageError(f"{what} is not valid TOML: {_why(error)}", hint) from None


def _why(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)[:100]
