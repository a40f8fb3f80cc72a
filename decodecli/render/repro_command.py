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


def repeat_command(header: RunHeader) -> str:
    """A shell line that asks for the same run again.

    It names what differs from the defaults or was asked for anywhere, and the seed unless the run is
    greedy. A prompt that is very long, or that no argument can hold, is left to a file, with a note
    behind `#`.
    """
    prompt, greedy = header.prompt, header.greedy
    # No command line can hold NUL or lone surrogates.
    unprintable = re.search("[\x00\ud800-\udfff]", prompt)
    in_file = len(prompt) > LONGEST_PROMPT or prompt == "-" or unprintable
    first, last, note = [quoted(prompt)], [], ""
    if in_file:
        first = ["--file PROMPT.txt"]
        note = f"  # PROMPT.txt: the prompt, {count(len(prompt))} characters"
    elif prompt.startswith("-"):
        first, last = [], [f"-- {quoted(prompt)}"]
    words = [*first, *_model_options(header), *_decoding_options(header)]
    words += [*([] if greedy else [f"--seed {header.seed}"]), *last]
    return " ".join(["decodecli generate", *words]) + note


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


def _model_options(header: RunHeader) -> list[str]:
    """The model, and of the loading options those that were not left to `auto`."""
    model = header.model
    words = []
    if model.name != BUILTIN or _requested(header, "model"):
        words.append(f"--model {quoted(model.name)}")
    if model.revision and header.sources.get("revision") != "default":
        words.append(f"--revision {quoted(model.revision)}")
    if header.params.get("loader"):
        words.append(f"--loader {header.params['loader']}")
    loading = [name for name in ("device", "dtype", "quantize") if _requested(header, name)]
    words += [f"{flag_name(name)} {quoted(str(getattr(model, name)))}" for name in loading]
    permissions = ("allow_pickle", "trust_remote_code")
    return words + [flag_name(name) for name in permissions if header.params.get(name)]


def _decoding_options(header: RunHeader) -> list[str]:
    params = header.params
    words: list[str] = []
    bos, system = params.get("bos"), params.get("system")
    if params.get("chat"):
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
            flag = {"temperature": "-t", "max_new_tokens": "-n"}.get(name, flag_name(name))
            words.append(f"{flag} {plain(value) if isinstance(value, float) else value}")
    return words + [f"--stop {quoted(text)}" for text in params.get("stop") or ()]


def _requested(header: RunHeader, name: str) -> bool:
    """Whether a value was asked for, by flag, environment or file."""
    return header.sources.get(name, "default") != "default"


def quoted(text: str) -> str:
    """`text` as one shell word that is safe to print: plain, "…", '…', or $'…' with escapes."""
    if text.isprintable():
        if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
            return text
        return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'

    def escaped(character: str) -> str:
        if character == "'":
            return "\\'"
        if character.isprintable() and character != "\\":
            return character
        if "\x7f" < character < "\u0100":
            return f"\\u{ord(character):04x}"  # Python's \x would be a byte to the shell
        return character.encode("unicode_escape").decode()

    return f"$'{''.join(map(escaped, text))}'"
