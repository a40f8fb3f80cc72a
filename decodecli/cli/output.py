"""Results on standard output: as tables, JSON, JSON lines or CSV; what `softmax` and
`inspect-logits` share."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from decodecli.cli import streams
from decodecli.cli.color import console
from decodecli.errors import UsageError

if TYPE_CHECKING:
    from decodecli.config import Effective
    from decodecli.models.loading import LanguageModel
    from decodecli.records.distribution import Continuation, DistributionReport
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
    elif format == "jsonl":
        from decodecli.records.json_lines import to_json_line

        infinite = (float("inf"), float("-inf"))  # which JSON cannot hold
        rows = ({k: None if v in infinite else v for k, v in row.items()} for row in report.flat())
        streams.write_stdout("".join(to_json_line(row) + "\n" for row in rows))
    elif format == "csv":
        table = report.flat()
        write_csv([table[0] if table else (), *(row.values() for row in table)])
    else:
        style = style_of(sys.stdout, byte_level() if callable(byte_level) else byte_level)
        write_lines(lines(style), style)


def write_json(report: dict[str, Any]) -> None:
    """One object on stdout, strict JSON."""
    from decodecli.records.json_lines import to_json_line

    streams.write_stdout(to_json_line(report) + "\n")


def write_answer(report: Any, format: str, lines: Iterable[str]) -> None:
    """A small report on stdout, as JSON laid out for people or as `lines` of text."""
    if format == "json":
        import json

        text = json.dumps(report, ensure_ascii=False, indent=2)
    else:
        text = streams.printable("\n".join(lines))
    streams.write_stdout(text + "\n")


def write_csv(rows: Iterable[Iterable[Any]]) -> None:
    """Rows on stdout as CSV."""
    from decodecli.csv_text import csv_text
    from decodecli.render.escaping import safe_text

    text = csv_text(rows)
    streams.write_stdout(safe_text(text) if streams.is_terminal(sys.stdout) else text)


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


def temperatures(typed: Sequence[str], effective: Effective) -> tuple[float, ...]:
    """The values of `--temperature`, each one or several with commas; else the effective one.

    Raises:
        UsageError: a word that is no number.
    """
    if not typed:
        return (float(effective.values["temperature"]),)
    for word in typed:  # 0,7 or 1,25, where few would ask for a temperature of 7 or 25
        if re.fullmatch(r"\d,(0\d+|[3-9]|[1-9]\d+)", word, re.ASCII):
            streams.Notices(effective.output().quiet).tell(
                f"-t {word} is two temperatures; with a decimal point, one: {word.replace(',', '.')}"
            )
    values = []
    for word in ",".join(typed).split(","):
        try:
            values.append(float(word))
        except ValueError:
            raise UsageError(
                f"--temperature must be numbers, got {word!r}", "for example -t 0.4,1.0,1.6"
            ) from None
    return tuple(values)


def show_distribution(
    report: DistributionReport,
    format: str,
    plot: str | None,
    plot_kind: str,
    quiet: bool,
    scores: Any = None,
    continuations: Sequence[Continuation] = (),
) -> None:
    """The report on stdout in the format asked for, its notes on stderr, its plot where asked.

    Args:
        scores: every score of the distribution, (vocab,), for the plots that draw curves.
        continuations: of the tokens that were asked for; a plot of tokens follows these.
    """
    ids = [str(chain.token_ids[0]) for chain in continuations] if plot_kind == "tokens" else []
    if plot is not None and plot != "-":
        from decodecli.render.plots.distribution import draw

        draw(report, plot, plot_kind, ids, scores=scores)
        streams.Notices(quiet).tell(f"the distribution is drawn in {plot}")
    streams.Notices(quiet).tell_all(report.notes)

    def lines(style: Style) -> list[str]:
        from decodecli.render.terminal.distribution_tables import (
            continuation_lines,
            distribution_lines,
            report_header,
        )

        drawn = [*report_header(report, style), *distribution_lines(report, style)]
        drawn += continuation_lines(continuations, style)
        if plot == "-":
            from decodecli.render.plots.in_terminal import draw_terminal

            picture = draw_terminal(
                report, style.width, plot_kind, style.ascii_only, style.theme,
                tokens=ids, scores=scores, byte_level=style.byte_level,
            )  # fmt: skip
            drawn += ["", picture.rstrip("\n")]
        return drawn

    def byte_level() -> bool:
        from decodecli.render.escaping import guess_byte_level

        return guess_byte_level(row.token for row in report.rows)

    if format == "json" and continuations:
        chains = [chain.as_dict() for chain in continuations]
        write_json(report.as_dict() | {"continuations": chains})
    else:
        write_report(report, format, lines, byte_level)
