"""Plots of a next-token distribution: a file by matplotlib (extra `plots`), or the terminal.

Colours are Okabe and Ito's for tokens and viridis for temperature, in shades that differ in grey
too. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from decodecli.records.distribution import DistributionReport
from decodecli.render.plots.distribution_view import KINDS, distribution_view
from decodecli.render.plots.figure_file import save_figure, style
from decodecli.render.plots.in_terminal import draw_terminal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KINDS", "draw", "draw_terminal", "figure"]


def draw(
    report: DistributionReport,
    path: str,
    kind: str = "auto",
    tokens: Sequence[str] = (),
    *,
    scores: Any = None,
    size: tuple[float, float] | None = None,
    byte_level: bool | None = None,
) -> None:
    """Write one plot of `report` to `path`, in the format of its suffix.

    Args:
        kind: one of `KINDS`. "auto" is bars for one temperature and a panel for several; "bars"
            takes one temperature; "panel" has a small plot for each; "lines" a line for each over
            the tokens; "tokens" probability over temperature, a line a token; "cumulative" the
            probability of the first so many tokens; "entropy" over temperature.
        tokens: the rows to draw, by piece, as shown, or by id; none means the highest (60; 8 for
            "tokens").
        scores: `(size,)`, what is divided by the temperature, indexed by token id. With it, curves
            over temperature and rank are exact and dense; without, they join what the report has.
        size: inches; None fits the number of tokens. It grows where labels would overlap.
        byte_level: whether pieces are spelt in GPT-2's byte alphabet; None guesses.

    Raises:
        UsageError: unknown suffix, kind or token; matplotlib is missing.
        WriteError: the file cannot be written.
    """
    save_figure(
        path,
        lambda: figure(report, kind, tokens, scores=scores, size=size, byte_level=byte_level),
    )


def figure(
    report: DistributionReport,
    kind: str = "auto",
    tokens: Sequence[str] = (),
    *,
    scores: Any = None,
    size: tuple[float, float] | None = None,
    byte_level: bool | None = None,
) -> Figure:
    """The matplotlib figure that `draw` writes; the arguments are the same."""
    with style():
        from decodecli.render.plots import bars, curves

        view = distribution_view(report, kind, tokens, scores, byte_level)
        makers = {
            "bars": bars.panel,
            "panel": bars.panel,
            "lines": curves.lines,
            "tokens": curves.tokens,
            "cumulative": curves.cumulative,
            "entropy": curves.entropy,
        }
        return makers[view.kind](view, size)
