"""`decodecli softmax`: numbers typed by hand, turned into probabilities in view."""

from __future__ import annotations

from typing import Annotated

import typer

from decodecli.cli import options as o
from decodecli.cli import streams

FORMATS = ("table", "json", "jsonl", "csv")
_NOT_SETTINGS = {"numbers", "file", "temperature", "probs", "energies", "target", "plot"}
_NOT_SETTINGS |= {"plot_kind", "sort", "format", "debug"}

Numbers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TOKEN=LOGIT…",
        show_default=False,
        help="Tokens and their numbers; none: from --file or standard input (CSV or JSON).",
    ),
]
Probs = Annotated[
    bool | None,
    o.switch("--probs", panel=o.INPUT, help="The numbers are probabilities: softmax(log p / T)."),
]
Energies = Annotated[
    bool | None,
    o.switch(
        "--energies", panel=o.INPUT, help="The numbers are energies: Boltzmann's softmax(−E / T)."
    ),
]
Target = Annotated[
    str | None,
    o.option(
        "--target", panel=o.OUTPUT, default=None, metavar="TOKEN", help="Add its cross-entropy."
    ),
]
Sort = Annotated[
    str | None,
    o.option("--sort", panel=o.OUTPUT, default="rank",
    help="rank: the most probable first; given: the order of the input.",
    **o.choices("rank", "given")),
]  # fmt: skip


def softmax(
    numbers: Numbers = None,
    temperature: o.Temperatures = None,
    probs: Probs = None,
    energies: Energies = None,
    file: o.File = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    typical_p: o.TypicalP = None,
    epsilon_cutoff: o.EpsilonCutoff = None,
    eta_cutoff: o.EtaCutoff = None,
    target: Target = None,
    sort: Sort = None,
    plot: o.Plot = None,
    plot_kind: o.PlotKind = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    quiet: o.Quiet = None,
    color: o.Color = None,
    debug: o.Debug = None,
    preset: o.Preset = None,
    config: o.Config = None,
) -> None:
    """Softmax by hand: probabilities of any numbers, at any temperatures, with no model.

    [bold]Examples[/bold]

      decodecli softmax day=5.0 space=2.2 furniture=2.0 night=4.5

      decodecli softmax a=1 b=2 c=3 d=4 -t 1,0.5,0.1 --target d

      decodecli softmax cat=0.6 dog=0.3 fish=0.1 --probs -t 0.5,1,2 --top-p 0.8

      decodecli softmax --file logits.csv --format json
    """
    flags = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    from decodecli.analysis import score_input as given
    from decodecli.cli import output as reporting
    from decodecli.config import resolve
    from decodecli.errors import UsageError

    if probs and energies:
        raise UsageError("--probs and --energies were both given", "numbers are one or the other")
    kind = "probability" if probs else "energy" if energies else "logit"
    effective = resolve(flags)
    if numbers:
        if file is not None:
            raise UsageError("numbers and --file were both given", "give one of them")
        pairs = given.pairs_from_words(numbers)
    else:
        text, where = streams.read_data(file)
        pairs = given.pairs_from_text(text, where, kind)
    report = given.softmax(
        pairs,
        reporting.temperatures(temperature, effective),
        kind=kind,
        target=target,
        params=effective.sampling(),
        sort=sort or "rank",
    )
    reporting.show(report, format or "table", FORMATS, plot, plot_kind, effective.output().quiet)
