"""Results on standard output: as tables, JSON, JSON lines or CSV."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from decodecli.cli import streams
from decodecli.cli.color import console

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel
    from decodecli.render.terminal.step_table import Style

TABLE_FORMATS = ("table", "json", "jsonl", "csv")


class Report(Protocol):
    """What a command answers, as an object for JSON and as rows of equal keys."""

    def as_dict(self) -> dict[str, Any]: ...
    def flat(self) -> list[dict[str, Any]]: ...


def write_report(
    report: Report,
    format: str,
    lines: Callable[[Style], Iterable[str]],
    byte_level: bool | Callable[[], bool] = False,
) -> None:
    """A report on stdout in the format asked for.

    Args:
        lines: draws its tables.
        byte_level: whether tokens are spelt in GPT-2's byte alphabet.
    """
    if format == "json":
        write_json(report.as_dict())
    elif format in ("jsonl", "csv"):
        write_rows(report.flat(), format)
    else:
        style = style_of(sys.stdout, byte_level() if callable(byte_level) else byte_level)
        write_lines(lines(style), style)


def write_json(report: dict[str, Any]) -> None:
    """One object on stdout, strict JSON."""
    from decodecli.records.run import to_json_line

    streams.write_stdout(to_json_line(report) + "\n")


def write_indented(report: Any) -> None:
    """One object on stdout, JSON laid out for people."""
    import json

    streams.write_stdout(json.dumps(report, ensure_ascii=False, indent=2) + "\n")


def write_rows(rows: list[dict[str, Any]], format: str) -> None:
    """Rows of equal keys on stdout, as JSON lines or as CSV with a header line."""
    from decodecli.csv_text import csv_text
    from decodecli.records.run import to_json_line

    if format == "jsonl":
        infinite = (float("inf"), float("-inf"))  # which JSON cannot hold
        strict = ({k: None if v in infinite else v for k, v in row.items()} for row in rows)
        streams.write_stdout("".join(to_json_line(row) + "\n" for row in strict))
        return
    text = csv_text([rows[0] if rows else (), *(row.values() for row in rows)])
    if streams.is_terminal(sys.stdout):
        from decodecli.render.escaping import safe_text

        text = safe_text(text)
    streams.write_stdout(text)


def style_of(stream: Any, byte_level: bool = False) -> Style:
    """How to draw on a stream."""
    from decodecli.render.terminal.step_table import Style
    from decodecli.render.theme import Theme

    target = console(stream)
    return Style(
        width=target.width,
        theme=Theme.of(target),
        encoding=target.encoding,
        byte_level=byte_level,
    )


def write_lines(lines: Iterable[str], style: Style) -> None:
    """Lines on stdout, in what its encoding can say."""
    text = "".join(line + "\n" for line in lines)
    streams.write_stdout(text.encode(style.encoding, "replace").decode(style.encoding))


def is_byte_level(lm: LanguageModel) -> bool:
    """Whether a model's tokens are spelt in GPT-2's byte alphabet."""
    from decodecli.models.detokenize import tokenizer_kind

    return tokenizer_kind(lm.codec) == "byte_level"
