"""What `tokenize` does once its options are known: checks, finds the tokenizers, asks, shows."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from decodecli.cli import output as reporting
from decodecli.cli import streams
from decodecli.cli.commands.tokenize import FORMATS
from decodecli.config import Effective
from decodecli.errors import UsageError
from decodecli.settings import check_choice
from decodecli.text_files import parse_json

if TYPE_CHECKING:
    from decodecli.analysis.tokenizer import Tokenizer
    from decodecli.records.tokens import TokenReport, TokenReports, VocabularyReport


@dataclass(frozen=True)
class Asked:
    """Everything that was asked for."""

    effective: Effective
    models: tuple[str, ...]
    ids: str | None
    chat: bool
    lines: bool
    compare_bos: bool
    vocabulary: bool
    grep: str | None
    longest: int | None
    script: str | None
    format: str

    @property
    def bos(self) -> bool | None:
        return self.effective.output().bos

    def check(self, has_text: bool) -> None:
        """Raises `UsageError` for options that do not go together."""
        check_choice("format", self.format, FORMATS)
        if len(set(self.models)) < len(self.models):
            raise UsageError("--model names one twice", "give each once")
        given = {
            "--vocab": self.vocabulary,
            "--ids": self.ids is not None,
            "--chat": self.chat,
            "--lines": self.lines,
            "--compare-bos": self.compare_bos,
            "--bos or --no-bos": self.effective.sources.get("bos") == "flag",
            "a text or --file": has_text,
            "several --model": len(self.models) > 1,
        }
        for first, others in _APART.items():
            for other in others:
                if given[first] and given[other]:
                    raise UsageError(f"{first} goes with no {other}", "leave one out")
        for name in ("grep", "longest", "script"):
            if getattr(self, name) is not None and not self.vocabulary:
                raise UsageError(f"--{name} goes with --vocab", f"--vocab --{name} …")


_BOS = "--bos or --no-bos"
_APART = {
    "--vocab": (
        "--ids", "--chat", "--lines", "--compare-bos", _BOS, "a text or --file", "several --model",
    ),
    "--ids": ("--chat", "--lines", "--compare-bos", _BOS, "a text or --file"),
    "--chat": ("--lines", "--compare-bos", _BOS),
    "--compare-bos": (_BOS, "several --model"),
}  # fmt: skip


def encode(asked: Asked, text: str, *, messages: bool) -> None:
    """Show the tokens of a text under every model, with and without BOS, line by line: as asked."""
    from decodecli.analysis.tokenization import tokenize, tokenize_chat

    found = _tokenizers(asked)
    if asked.chat:
        said = _messages(text) if messages else [{"role": "user", "content": text}]
        _tell_forged(asked, said, found)
        _show(asked, [tokenize_chat(said, tokenizer) for tokenizer in found])
        return
    ways = [True, False] if asked.compare_bos else [asked.bos]
    if not asked.lines:
        _show(asked, [tokenize(text, each, bos) for each in found for bos in ways])
        return
    reports = [
        replace(tokenize(line, each, bos), line=number)
        for number, line in enumerate(re.split(r"\r?\n", text), 1)
        if line.strip()  # nothing to count in the others, and no token without BOS
        for each in found
        for bos in ways
    ]
    if not reports:
        raise UsageError("there is no line with any text", "give some text")
    _show(asked, reports)


def decode(asked: Asked, written: str) -> None:
    """Show what ids stand for."""
    from decodecli.analysis.tokenization import decode_ids, parse_ids

    ids = parse_ids(written)
    _show(asked, [decode_ids(ids, tokenizer) for tokenizer in _tokenizers(asked)])


def list_vocabulary(asked: Asked) -> None:
    """Show the vocabulary, or the part of it that was asked for."""
    from decodecli.analysis.vocabulary import vocabulary

    (tokenizer,) = _tokenizers(asked)
    report = vocabulary(tokenizer, grep=asked.grep, longest=asked.longest, script=asked.script)
    if not _write(asked, report):
        from decodecli.render.terminal.token_tables import vocabulary_lines

        style = reporting.style_of(sys.stdout, report.byte_level)
        reporting.write_lines(vocabulary_lines(report, style), style)


def _tokenizers(asked: Asked) -> list[Tokenizer]:
    from decodecli.analysis.tokenizer import find_tokenizer
    from decodecli.cli.run import loading_line

    output, values = asked.effective.output(), asked.effective.values
    found = []
    for name in asked.models:
        with loading_line(name, output) as progress:
            found.append(
                find_tokenizer(
                    name,
                    values["revision"],
                    trust_remote_code=values["trust_remote_code"],
                    verbose=output.verbose,
                    progress=progress,
                )
            )
    return found


def _tell_forged(asked: Asked, said: list[dict[str, Any]], found: Sequence[Tokenizer]) -> None:
    """Notice special tokens that stand in a message, which `generate --chat` reads as text."""
    whole = "\n".join(str(message.get("content")) for message in said)
    pieces = [piece for each in found for i in each.special if (piece := each.piece(i))]
    typed = [piece for piece in dict.fromkeys(pieces) if piece in whole]
    if typed and not asked.effective.output().quiet:
        streams.tell(
            f"Note: {', '.join(typed[:3])} in a message is a special token here; generate --chat "
            "reads it as text, unless --allow-special is given"
        )


def _messages(text: str) -> list[dict[str, Any]]:
    """A conversation as chat templates take it: a list of objects with role and content.

    Raises:
        UsageError: it is none.
    """
    found = parse_json(text, "--file", 'like [{"role": "user", "content": "Hello"}]')
    whole = isinstance(found, list) and all(
        isinstance(message, dict) and "role" in message for message in found
    )
    if not found or not whole:
        raise UsageError(
            "--file holds no list of messages", 'like [{"role": "user", "content": "Hello"}]'
        )
    messages: list[dict[str, Any]] = found
    return messages


def _show(asked: Asked, reports: Sequence[TokenReport]) -> None:
    """One report by itself; several told apart by what was compared."""
    report = reports[0] if len(reports) == 1 and not asked.lines else _together(asked, reports)
    if _write(asked, report):
        return
    from decodecli.records.tokens import TokenReports
    from decodecli.render.terminal.token_tables import several_lines, token_lines

    style = reporting.style_of(sys.stdout)
    if isinstance(report, TokenReports):
        reporting.write_lines(several_lines(report, style), style)
    else:
        reporting.write_lines(token_lines(report, style), style)


def _together(asked: Asked, reports: Sequence[TokenReport]) -> TokenReports:
    from decodecli.records.tokens import TokenReports

    if asked.compare_bos:
        return TokenReports("bos", ("bos", "no-bos"), tuple(reports))
    if len(asked.models) > 1:
        return TokenReports("model", asked.models, tuple(reports))
    return TokenReports("line", (asked.models[0],), tuple(reports))


def _write(asked: Asked, report: TokenReport | TokenReports | VocabularyReport) -> bool:
    """Write it for machines, if it is for them; what would steer a terminal is escaped in JSON, and
    in CSV where a terminal shows it."""
    from decodecli.records.run import to_json_line

    if asked.format == "json":
        streams.write_stdout(to_json_line(report.as_dict()) + "\n")
    elif asked.format == "jsonl":
        streams.write_stdout("".join(to_json_line(row) + "\n" for row in report.flat()))
    elif asked.format == "csv":
        rows = report.flat()
        if streams.is_terminal(sys.stdout):
            rows = [{key: _harmless(value) for key, value in row.items()} for row in rows]
        if rows:
            reporting.write_rows(rows, "csv")
        else:  # a search of the vocabulary that found nothing
            streams.write_stdout("token_id,token,text,bytes,kind,script\n")
    else:
        return False
    return True


def _harmless(value: Any) -> Any:
    from decodecli.render.escaping import safe_text

    return safe_text(value) if isinstance(value, str) else value
