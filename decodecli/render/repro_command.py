"""The command that repeats a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Mapping
from dataclasses import asdict, fields
from typing import Any

from decodecli.ranges import LISTS, flag_name
from decodecli.records.run import RunHeader
from decodecli.records.sweep import CellRecord
from decodecli.render.number_format import count, plain
from decodecli.settings import BUILTIN, BeamParams, SamplingParams

LONGEST_PROMPT = 200


def repeat_command(header: RunHeader) -> str:
    """A shell line that asks for the same run again.

    It names what differs from the defaults or was asked for anywhere, and the seed unless the run is
    greedy. A prompt that is very long, or that no argument can hold, is left to a file, with a note
    behind `#`.
    """
    settings = {**header.params, **asdict(header.model), "model": header.model.name}
    if header.sources.get("revision") == "default":
        del settings["revision"]
    seed = None if header.greedy else header.seed
    return _generate_command(header.prompt, settings, header.sources, seed)


def cell_command(record: CellRecord, model: Mapping[str, Any]) -> str:
    """The shell line that generates a sweep's cell on its own.

    Args:
        model: the options that say which model it was, as `sweep.toml` has them; none for our own.
    """
    seed = None if record.params.get("temperature") == 0 else record.params["seed"]
    sources = dict.fromkeys(model, "flag")
    return _generate_command(
        record.prompt, {"model": BUILTIN, **model, **record.params}, sources, seed
    )


def _generate_command(
    prompt: str, settings: Mapping[str, Any], sources: Mapping[str, str], seed: int | None
) -> str:
    # No command line can hold NUL or lone surrogates.
    unprintable = re.search("[\x00\ud800-\udfff]", prompt)
    first, last, note = [quoted(prompt)], [], ""
    if len(prompt) > LONGEST_PROMPT or prompt == "-" or unprintable:
        first = ["--file PROMPT.txt"]
        note = f"  # PROMPT.txt: the prompt, {count(len(prompt))} characters"
    elif prompt.startswith("-"):
        first, last = [], [f"-- {quoted(prompt)}"]
    requested = {name for name, source in sources.items() if source != "default"}
    words = [*first, *_model_options(settings, requested), *_decoding_options(settings, requested)]
    words += [*([] if seed is None else [f"--seed {seed}"]), *last]
    return " ".join(["decodecli generate", *words]) + note


def _model_options(settings: Mapping[str, Any], requested: Container[str]) -> list[str]:
    """The model, and of the loading options those that were not left to `auto`."""
    words = []
    if settings["model"] != BUILTIN or "model" in requested:
        words.append(f"--model {quoted(settings['model'])}")
    if settings.get("revision"):
        words.append(f"--revision {quoted(settings['revision'])}")
    if settings.get("loader", "auto") != "auto":
        words.append(f"--loader {settings['loader']}")
    for name in ("device", "dtype", "quantize"):
        words += [f"{flag_name(name)} {quoted(settings[name])}"] if name in requested else []
    permissions = ("allow_pickle", "trust_remote_code")
    return words + [flag_name(name) for name in permissions if settings.get(name)]


def _decoding_options(settings: Mapping[str, Any], requested: Container[str]) -> list[str]:
    words: list[str] = []
    bos, system = settings.get("bos"), settings.get("system")
    if settings.get("chat"):
        words += ["--chat"] if system is None else [f"--system {quoted(system)}"]
        words += ["--allow-special"] if settings.get("allow_special") else []
    elif bos is not None:
        words.append("--bos" if bos else "--no-bos")
    for field in fields(SamplingParams):
        name, value = field.name, settings.get(field.name, field.default)
        if name == "seed" or name in LISTS or value is None:
            continue
        if name == "temperature" and (value == 0 or settings.get("greedy")):
            words.append("--greedy")
        elif value != field.default or name in requested:
            flag = {"temperature": "-t", "max_new_tokens": "-n"}.get(name, flag_name(name))
            words.append(
                f"{flag} {plain(value) if isinstance(value, float) else quoted(str(value))}"
            )
    for name in LISTS:
        texts = settings.get(name, getattr(SamplingParams, name))
        if tuple(texts) != getattr(SamplingParams, name):
            words += [f"{flag_name(name)} {quoted(text)}" for text in texts or ("none",)]
    words += _beam_options(settings)
    words += ["--explain"] if settings.get("explain") else []
    for name in ("watch", "what_if"):
        words += [f"{flag_name(name)} {quoted(str(text))}" for text in settings.get(name, ())]
    return words


def _beam_options(settings: Mapping[str, Any]) -> list[str]:
    """What asks for a beam search, where it was one."""
    words = []
    for field in fields(BeamParams) if settings.get("num_beams", 1) != 1 else ():
        value = settings.get(field.name, field.default)
        if value is True:
            words.append(flag_name(field.name))
        elif value != field.default:
            number = plain(value) if isinstance(value, float) else quoted(str(value))
            words.append(f"{flag_name(field.name)} {number}")
    return words


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
