"""`decodecli sweep`: many settings on many prompts, from one loaded model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from decodecli.cli import options as o
from decodecli.cli.command import INPUT, OUTPUT, Argument, Option, command
from decodecli.errors import UsageError

FORMATS = ("text", "jsonl")
AXES, RUN = "Decoding: one value each, or several", "Running"


def _grids(incomplete: str) -> list[str]:
    from decodecli.sweeps.grid_file import grid_names

    return [name for name in grid_names() if name.startswith(incomplete)]


PROMPTS = o.PROMPT.but(
    several=True,
    help=r"What to continue; - reads one from standard input. [dim]\[default: Once upon a time,][/dim]",
)
INPUTS: tuple[Argument | Option, ...] = (
    Option("prompts", str, INPUT,
           "Prompts from FILE (or -): a line each, or JSONL with prompt, id, expect, task.", "FILE"),
    o.FILE.but(help="Read FILE as one prompt."),
    Option("grid", str, INPUT, "Axes and prompts from a TOML file, or a shipped grid by name.",
           "NAME_OR_FILE", flags="-g", complete=_grids),
    Option("zip", str, INPUT, "Go through these axes together, row by row (repeatable).", "AXIS,AXIS",
           "off: every combination", several=True),
)  # fmt: skip
SEED = o.SEED.axis(AXES)
BOS = o.BOS.axis(AXES)
CELLS = (
    *(option.axis(AXES) for option in o.AXES[:1]),
    o.GREEDY.but(panel=AXES, help="The same as -t 0."),
    *(option.axis(AXES) for option in o.AXES[1:]),
    *(option.but(panel=AXES) for option in (*o.TEXTS, o.ORDER)),
    o.STOP.but(panel=AXES, help="End the text before STRING (repeatable; no axis)."),
    SEED.but(name="seeds", help="A cell each; 0 to 4294967295.", default="one, drawn and shown"),
    SEED.but(help="The same as --seeds.", default="drawn"),
    BOS.but(metavar="on|off|auto…", flags="", default="auto, as the tokenizer does",
            help="Add special tokens to the prompt; on,off for both."),
    Option("no_bos", bool, AXES, "The same as --bos off."),
)  # fmt: skip
RUNNING = (
    Option("dry_run", bool, RUN, "Show the cells and an estimate; run nothing."),
    Option("batch_size", int, RUN, "Cells decoded together.", "N", "16", "-b"),
    Option("exact", bool, RUN,
           "Promise every cell the ids of generate alone, at a cost; see docs/SWEEP.md."),
    Option("engine", str, RUN, "Where cells run: here, or on a Ray cluster.",
           default="local", choices=("local", "ray")),
    Option("address", str, RUN, "Of the Ray cluster; auto finds a running one.", "ADDR",
           "a cluster of this machine alone"),
    Option("actors", int, RUN, "Copies of the model on the cluster.", "N",
           "one a GPU, else by cores"),
)  # fmt: skip
OUTPUTS = (
    Option("out", str, OUTPUT, "Folder of the results; the same command goes on in it.", "DIR",
           "a new folder in decodecli-runs/; with --format jsonl none", "-o"),
    Option("extend", bool, OUTPUT,
           "Grow the sweep in --out DIR to this larger grid; finished cells are kept."),
    o.format_of(*FORMATS),
    Option("traces", bool, OUTPUT, "Keep every step of every cell: traces/000123.jsonl."),
    o.CANDIDATES.but(help="Candidates of a trace's step."),
    Option("plots", bool, OUTPUT, "Draw plots/.", default="on", flags="--plots/--no-plots"),
    Option("show", bool, OUTPUT, "Show the texts side by side at the end."),
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class SweepRequest:
    """What stood on the command line; `settings` are the options that say more in files and variables."""

    settings: dict[str, Any]
    prompt: tuple[str, ...] = ()
    prompts: str | None = None
    file: str | None = None
    grid: str | None = None
    zip: tuple[str, ...] = ()
    no_bos: bool = False
    dry_run: bool = False
    extend: bool = False

    @cached_property
    def flags(self) -> dict[str, Any]:
        """The settings for `config.resolve`, one that was given several times as one expression."""
        from decodecli.ranges import LISTS

        flags = {
            name: ",".join(value) if isinstance(value, tuple) and name not in LISTS else value
            for name, value in self.settings.items()
        }
        if self.no_bos and flags["bos"] is not None:
            raise UsageError("--bos and --no-bos were both given", "for both, write --bos on,off")
        return flags | ({"bos": "off"} if self.no_bos else {})

    @property
    def says_cells(self) -> bool:
        """Whether anything there says which cells there are."""
        named = (*self.prompt, self.prompts, self.file, self.grid, *self.zip)
        options = (*o.OF_CELLS, "seeds", "preset")
        return any(named) or any(self.flags.get(name) is not None for name in options)


@command(
    *(PROMPTS, *INPUTS, *CELLS, *o.CHAT, *o.LOADING, *RUNNING, *OUTPUTS),
    *(o.QUIET, o.VERBOSE, o.COLOR, o.DEBUG, o.PRESET, o.CONFIG_FILE),
    request=SweepRequest,
)
def sweep(request: SweepRequest) -> None:
    """Run every combination of settings, prompts and seeds, and measure what comes of it.

    Several values: 0.2,0.7 · 0..4 (whole numbers) · 0.2:1.4:0.2 (steps) ·
    log:0.1:10:5 (five, in equal ratios) · or these joined by commas; an option
    given twice has the values of both. Results are kept as cells end; the same
    command goes on where a run stopped.

    [bold]Examples[/bold]

      decodecli sweep "Once upon a time" -t 0.2,0.7,1.0,1.4 --top-p 0.2,0.9 --seeds 0..4 --out runs

      decodecli sweep "Once upon a time" -t 0:2:0.25 --seeds 0..9 --dry-run

      decodecli sweep --grid notebook --show

      decodecli sweep "The capital of Japan is" -t log:0.1:10:9 --format jsonl | jq .text
    """
    from decodecli.cli.sweep.run import run_sweep

    run_sweep(request)
