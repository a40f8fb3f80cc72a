"""`decodecli softmax`: numbers typed by hand, turned into probabilities in view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import INPUT, OUTPUT, Argument, Option, command
from decodecli.cli.output import TABLE_FORMATS, show_distribution, temperatures
from decodecli.errors import UsageError

if TYPE_CHECKING:
    from decodecli.config import Effective

NUMBERS = Argument(
    "numbers",
    "TOKEN=LOGIT…",
    "Tokens and their numbers; none: from --file or standard input (CSV or JSON).",
    several=True,
)
PROBS = Option("probs", bool, INPUT, "The numbers are probabilities: softmax(log p / T).")
ENERGIES = Option("energies", bool, INPUT, "The numbers are energies: Boltzmann's softmax(−E / T).")
TARGET = Option("target", str, OUTPUT, "Add its cross-entropy.", "TOKEN")
SORT = Option(
    "sort", str, OUTPUT, "rank: the most probable first; given: the order of the input.",
    default="rank", choices=("rank", "given")
)  # fmt: skip


@command(
    *(NUMBERS, o.TEMPERATURES, PROBS, ENERGIES, o.FILE, *o.FILTERS, o.ORDER, TARGET, SORT, o.PLOT),
    *(o.PLOT_KIND, o.format_of(*TABLE_FORMATS), o.QUIET, o.COLOR, o.DEBUG),
    *(o.PRESET, o.CONFIG_FILE),
)
def softmax(
    effective: Effective,
    numbers: tuple[str, ...] = (),
    temperature: tuple[str, ...] = (),
    probs: bool = False,
    energies: bool = False,
    file: str | None = None,
    target: str | None = None,
    sort: str = "rank",
    plot: str | None = None,
    plot_kind: str = "auto",
    format: str = "table",
) -> None:
    """Softmax by hand: probabilities of any numbers, at any temperatures, with no model.

    [bold]Examples[/bold]

      decodecli softmax day=5.0 space=2.2 furniture=2.0 night=4.5

      decodecli softmax a=1 b=2 c=3 d=4 -t 1,0.5,0.1 --target d

      decodecli softmax cat=0.6 dog=0.3 fish=0.1 --probs -t 0.5,1,2 --top-p 0.8

      decodecli softmax --file logits.csv --format json
    """
    from decodecli.analysis import distribution

    if probs and energies:
        raise UsageError("--probs and --energies were both given", "numbers are one or the other")
    kind = "probability" if probs else "energy" if energies else "logit"
    if numbers:
        if file is not None:
            raise UsageError("numbers and --file were both given", "give one of them")
        pairs = distribution.pairs_from_words(numbers)
    else:
        text, where = streams.read_data(file)
        pairs = distribution.pairs_from_text(text, where, kind)
    report = distribution.softmax(
        pairs,
        temperatures(temperature, effective),
        kind=kind,
        target=target,
        params=effective.sampling(),
        sort=sort,
    )
    show_distribution(report, format, plot, plot_kind, effective.output().quiet)
