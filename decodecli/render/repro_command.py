"""The command that repeats a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from decodecli.records.run import ModelInfo, RunHeader
from decodecli.records.sweep import CellRecord
from decodecli.render.number_format import count, plain
from decodecli.settings import BUILTIN, SamplingParams, flag_name

LONGEST_PROMPT = 200

_SHORT_FLAGS = {"temperature": "-t", "max_new_tokens": "-n"}
_LOADING = ("device", "dtype", "quantize")
_PERMISSIONS = ("allow_pickle", "trust_remote_code")


def repeat_command(header: RunHeader) -> str:
    """A shell line that asks for the same run again.

    It names what differs from the defaults or was asked for anywhere, and the seed unless the run is
    greedy. A prompt that is very long, or that no argument can hold, is left to a file, with a note
    behind `#`.
    """
    words = ["decodecli generate"]
    note = ""
    prompt = header.prompt
    in_file = len(prompt) > LONGEST_PROMPT or prompt == "-" or _unprintable(prompt)
    if in_file:
        words.append("--file PROMPT.txt")
        note = f"  # PROMPT.txt: the prompt, {count(len(prompt))} characters"
    elif not prompt.startswith("-"):
        words.append(quoted(prompt))
    words += _model_words(header)
    words += _decoding_words(header)
    words += [] if header.greedy else [f"--seed {header.seed}"]
    if not in_file and prompt.startswith("-"):
        words.append(f"-- {quoted(prompt)}")
    return " ".join(words) + note


def cell_command(record: CellRecord, model: Mapping[str, Any]) -> str:
    """The shell line that generates a sweep's cell on its own.

    Args:
        model: the options that say which model it was, as `sweep.toml` has them; none for our own.
    """
    info = ModelInfo(
        name=model.get("model", BUILTIN),
        revision=model.get("revision"),
        parameters=0,
        vocab_size=0,
        dtype=model.get("dtype", "auto"),
        device=model.get("device", "auto"),
        quantize=model.get("quantize", "none"),
    )
    header = RunHeader(
        decodecli="",
        versions={},
        model=info,
        prompt=record.prompt,
        prompt_ids=(),
        params=record.params,
        sources=dict.fromkeys(model, "flag"),
        order=(),
        seed=record.params["seed"],
    )
    return repeat_command(header)


def _model_words(header: RunHeader) -> list[str]:
    """The model, and of the loading options those that were not left to `auto`."""
    model = header.model
    usual = model.name == BUILTIN and not _requested(header, "model")
    words = [] if usual else [f"--model {quoted(model.name)}"]
    if model.revision and _requested(header, "revision", unknown=True):
        words.append(f"--revision {quoted(model.revision)}")
    words += [
        f"{flag_name(name)} {quoted(str(getattr(model, name)))}"
        for name in _LOADING
        if _requested(header, name)
    ]
    words += [flag_name(name) for name in _PERMISSIONS if header.params.get(name)]
    return words


def _decoding_words(header: RunHeader) -> list[str]:
    params = header.params
    words: list[str] = []
    bos = params.get("bos")
    if params.get("chat"):
        system = params.get("system")
        words += ["--chat"] if system is None else [f"--system {quoted(system)}"]
        words += ["--allow-special"] if params.get("allow_special") else []
    elif bos is not None:
        words.append("--bos" if bos else "--no-bos")
    for field in fields(SamplingParams):
        name, value = field.name, params.get(field.name, field.default)
        if name in ("seed", "stop") or value is None:
            continue
        if name == "temperature" and (value == 0 or params.get("greedy")):
            words.append("--greedy")
        elif value != field.default or _requested(header, name):
            words.append(f"{_SHORT_FLAGS.get(name, flag_name(name))} {_number(value)}")
    words += [f"--stop {quoted(text)}" for text in params.get("stop") or ()]
    return words


def _requested(header: RunHeader, name: str, unknown: bool = False) -> bool:
    """Whether a value was asked for, by flag, environment or file; `unknown` when nobody knows."""
    return header.sources[name] != "default" if name in header.sources else unknown


def _number(value: Any) -> str:
    return plain(value) if isinstance(value, float) else str(value)


def _unprintable(text: str) -> bool:
    """Whether no command line can hold `text`: NUL, lone surrogates."""
    return bool(re.search("[\x00\ud800-\udfff]", text))


def quoted(text: str) -> str:
    """`text` as one shell word that is safe to print: plain, "…", '…', or $'…' with escapes."""
    if not text.isprintable():
        return "$'" + "".join(map(_escaped, text)) + "'"
    if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        return text
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'


def _escaped(character: str) -> str:
    """A character inside $'…'."""
    if character == "'":
        return "\\'"
    if character.isprintable() and character != "\\":
        return character
    if "\x7f" < character < "\u0100":
        return f"\\u{ord(character):04x}"  # Python's \x would be a byte to the shell
    return character.encode("unicode_escape").decode()
