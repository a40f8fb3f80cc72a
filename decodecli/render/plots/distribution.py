"""Plots of a next-token distribution: a file by matplotlib (extra `plots`), or the terminal.

Colours are Okabe and Ito's for tokens and viridis for temperature, in shades that differ in grey
too. The same input gives the same bytes.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError, WriteError
from decodecli.library_logging import quiet_libraries
from decodecli.records.distribution import DistributionReport
from decodecli.render.plots.data import KINDS, picture
from decodecli.render.plots.in_terminal import draw_terminal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KINDS", "draw", "draw_terminal", "figure"]

SUFFIXES = (".png", ".svg", ".pdf")
_DPI = 150
_NO_DATES: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": "decodecli"},
    ".pdf": {"CreationDate": None, "Creator": "decodecli", "Producer": None},
}


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


def check_suffix(path: str, hint: str = "or give - to draw in the terminal") -> str:
    """The format that a file name asks for; raises `UsageError` for an unknown one."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"--plot {path}: the file name must end in .png, .svg or .pdf", hint)
    return suffix


def check_plots_installed() -> None:
    """Raises `UsageError` where matplotlib is missing, without loading it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--plot FILE needs matplotlib, which is not installed", "pip install 'decodecli[plots]'"
        )


def save_figure(path: str, make: Callable[[], Figure]) -> None:
    """Write the figure that `make` returns, the same bytes for the same figure.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing.
        WriteError: the file cannot be written.
    """
    suffix, data = check_suffix(path), io.BytesIO()
    with style():
        make().savefig(data, format=suffix[1:], dpi=_DPI, metadata=_NO_DATES[suffix])
    try:
        Path(os.path.expanduser(path)).write_bytes(data.getvalue())
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error


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
        from decodecli.render.plots import bars as plot_bars
        from decodecli.render.plots import curves as plot_curves

        shown = picture(report, kind, tokens, scores, byte_level)
        makers = {
            "bars": plot_bars.bars,
            "panel": plot_bars.panel,
            "lines": plot_curves.lines,
            "tokens": plot_curves.tokens,
            "cumulative": plot_curves.cumulative,
            "entropy": plot_curves.entropy,
        }
        return makers[shown.kind](shown, size)


def import_matplotlib() -> Any:
    """Import matplotlib without a word from it; an `MPLBACKEND` that it does not know is left aside, as
    files are drawn without any.

    Raises:
        ImportError: it is not installed.
    """
    if sys.modules.get("matplotlib"):
        return sys.modules["matplotlib"]
    backend = os.environ.pop("MPLBACKEND", None)  # would fail the import half-way
    try:
        with quiet_libraries(allowed=False):
            matplotlib = importlib.import_module("matplotlib")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib


@contextmanager
def style() -> Iterator[None]:
    """Our own settings and nobody else's, given back afterwards."""
    try:
        matplotlib = import_matplotlib()
    except ImportError:
        raise UsageError(
            "--plot FILE needs matplotlib, which is not installed",
            "pip install 'decodecli[plots]', or --plot - to draw in the terminal",
        ) from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "text.parse_math": False,  # a token may be a dollar sign
                "svg.hashsalt": "decodecli",
                "font.size": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.edgecolor": "0.45",
                "axes.linewidth": 0.8,
                "axes.labelsize": 9,
                "axes.labelcolor": "0.2",
                "axes.axisbelow": True,
                "axes.unicode_minus": True,
                "xtick.color": "0.45",
                "ytick.color": "0.45",
                "xtick.labelcolor": "0.2",
                "ytick.labelcolor": "0.2",
                "xtick.labelsize": 8,
                "ytick.labelsize": 8,
                "grid.color": "0.88",
                "grid.linewidth": 0.7,
                "legend.frameon": False,
                "legend.fontsize": 8,
                "hatch.linewidth": 0.6,
                "lines.linewidth": 1.6,
                "figure.constrained_layout.h_pad": 0.06,
                "figure.constrained_layout.w_pad": 0.06,
            }
        )
        yield
