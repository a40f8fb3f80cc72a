"""What the commands that lay a distribution open share: temperatures in, a report out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from decodecli.cli import streams
from decodecli.config import Effective
from decodecli.errors import UsageError
from decodecli.settings import check_choice

if TYPE_CHECKING:
    from decodecli.records.distribution import Continuation, DistributionReport
    from decodecli.render.terminal.step_table import Style


def temperatures(given: Sequence[str] | None, effective: Effective) -> list[float]:
    """The list of `--temperature`, each value one or several with commas; else the effective one.

    Raises:
        UsageError: a word that is no number.
    """
    if not given:
        return [float(effective.values["temperature"])]
    found = []
    for word in ",".join(given).split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise UsageError(
                f"--temperature must be numbers, got {word!r}", "for example -t 0.4,1.0,1.6"
            ) from None
    return found


def show(
    report: DistributionReport,
    format: str,
    formats: tuple[str, ...],
    plot: str | None,
    plot_kind: str | None,
    quiet: bool,
    scores: Any = None,
    continuations: Sequence[Continuation] = (),
) -> None:
    """The report on stdout in the format asked for, its notes on stderr, its plot where asked."""
    check_choice("format", format, formats)
    if plot is not None and plot != "-":
        from decodecli.render.plots.distribution import draw

        draw(report, plot, plot_kind or "auto", _chosen(plot_kind, continuations), scores=scores)
    if not quiet:
        for note in report.notes:
            streams.tell(f"Note: {note}")
    if format == "json":
        found = report.as_dict()
        if continuations:
            found["continuations"] = [chain.as_dict() for chain in continuations]
        write_json(found)
    elif format in ("jsonl", "csv"):
        write_rows(report.flat(), format)
    else:
        _print(report, plot, plot_kind, scores, continuations)


def _chosen(plot_kind: str | None, continuations: Sequence[Continuation]) -> list[str]:
    """The tokens that were asked for, by id, where the plot follows tokens; else all listed ones."""
    if plot_kind != "tokens":
        return []
    return [str(chain.token_ids[0]) for chain in continuations]


def write_json(found: dict[str, Any]) -> None:
    """One object on stdout, strict JSON."""
    from decodecli.records.run import to_json_line

    streams.write_stdout(to_json_line(found) + "\n")


def write_rows(rows: list[dict[str, Any]], format: str) -> None:
    """Rows of equal keys on stdout, as JSON lines or as CSV with a header line."""
    from decodecli.csv_text import csv_text
    from decodecli.records.run import to_json_line

    if format == "jsonl":
        streams.write_stdout("".join(to_json_line(row) + "\n" for row in _strict(rows)))
        return
    found = csv_text([rows[0] if rows else (), *(row.values() for row in rows)])
    if streams.is_terminal(sys.stdout):
        from decodecli.render.escaping import safe_text

        found = safe_text(found)
    streams.write_stdout(found)


def _strict(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without infinities, which JSON cannot hold."""
    infinite = (float("inf"), float("-inf"))
    return [{k: None if v in infinite else v for k, v in row.items()} for row in rows]


def style_of(stream: Any, byte_level: bool = False) -> Style:
    """How to draw on a stream."""
    from decodecli.cli.color import console
    from decodecli.render.terminal.step_table import Style
    from decodecli.render.theme import Theme

    target = console(stream)
    return Style(
        width=target.width,
        theme=Theme.of(target),
        encoding=target.encoding,
        byte_level=byte_level,
    )


def write_lines(lines: Sequence[str], style: Style) -> None:
    """Lines on stdout, in what its encoding can say."""
    text = "".join(line + "\n" for line in lines)
    streams.write_stdout(text.encode(style.encoding, "replace").decode(style.encoding))


def _print(
    report: DistributionReport,
    plot: str | None,
    plot_kind: str | None,
    scores: Any,
    continuations: Sequence[Continuation],
) -> None:
    from decodecli.render.escaping import guess_byte_level
    from decodecli.render.terminal.distribution_tables import distribution_lines
    from decodecli.render.terminal.inspect_tables import continuation_lines, report_header

    style = style_of(sys.stdout, guess_byte_level(row.token for row in report.rows))
    lines = [*report_header(report, style), *distribution_lines(report, style)]
    lines += continuation_lines(continuations, style)
    if plot == "-":
        from decodecli.render.plots.distribution import draw_terminal

        drawn = draw_terminal(
            report,
            style.width,
            plot_kind or "auto",
            style.ascii_only,
            style.theme,
            tokens=_chosen(plot_kind, continuations),
            scores=scores,
            byte_level=style.byte_level,
        )
        lines += ["", drawn.rstrip("\n")]
    write_lines(lines, style)
