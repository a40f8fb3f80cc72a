"""What `softmax` and `inspect-logits` share: temperatures in, a distribution out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from decodecli.cli import streams
from decodecli.cli.output import TABLE_FORMATS, write_json, write_report
from decodecli.errors import UsageError
from decodecli.settings import check_choice

if TYPE_CHECKING:
    from decodecli.config import Effective
    from decodecli.records.distribution import Continuation, DistributionReport
    from decodecli.render.terminal.step_table import Style


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
    check_choice("format", format, TABLE_FORMATS)
    ids = [str(chain.token_ids[0]) for chain in continuations] if plot_kind == "tokens" else []
    if plot is not None and plot != "-":
        from decodecli.render.plots.distribution import draw

        draw(report, plot, plot_kind, ids, scores=scores)
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
