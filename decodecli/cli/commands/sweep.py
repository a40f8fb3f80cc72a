"""`decodecli sweep`: many settings on many prompts, from one loaded model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from decodecli.cli import chat_options as c
from decodecli.cli import options as o

FORMATS = ("text", "jsonl")
AXES, RUN = "Decoding: one value each, or several", "Running"
# What says which cells there are, by the names of the parameters below.
DECODING = (
    "temperature", "greedy", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "repetition_penalty", "no_repeat_ngram_size", "max_new_tokens", "stop", "seed", "bos",
)  # fmt: skip
_NOT_SETTINGS = (
    "prompt",
    "prompts",
    "file",
    "grid",
    "zip",
    "seeds",
    "no_bos",
    "extend",
    "dry_run",
    "debug",
)


def _grids(incomplete: str) -> list[str]:
    from decodecli.sweeps.grid_file import grid_names

    return [name for name in grid_names() if name.startswith(incomplete)]


def _axis(*names: str, **more: str) -> Any:
    """A decoding option as an axis."""
    return o.option(*names, panel=AXES, **more)


Prompts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROMPT",
        show_default=False,
        help="What to continue; - reads one from standard input. "
        r"[dim]\[default: Once upon a time,][/dim]",
    ),
]
PromptFile = Annotated[
    str | None,
    o.option(
        "--prompts", panel=o.INPUT, default=None, metavar="FILE",
        help="Prompts from FILE (or -): a line each, or JSONL with prompt, id, expect, task.",
    ),
]  # fmt: skip
File = Annotated[
    str | None,
    o.option("--file", "-f", panel=o.INPUT, default=None, metavar="FILE",
    help="FILE as one prompt."),
]  # fmt: skip
GridName = Annotated[
    str | None,
    o.option(
        "--grid", "-g", panel=o.INPUT, default=None, metavar="NAME_OR_FILE", autocompletion=_grids,
        help="Axes and prompts from a TOML file, or a shipped grid by name.",
    ),
]  # fmt: skip
Zip = Annotated[
    list[str] | None,
    o.option(
        "--zip", panel=o.INPUT, default="off: every combination", metavar="AXIS,AXIS",
        help="Go through these axes together, row by row (repeatable).",
    ),
]  # fmt: skip
Seeds = Annotated[
    list[str] | None,
    o.option("--seeds", panel=AXES, default="one, drawn and shown", metavar="S…",
    help="A cell each; 0 to 4294967295."),
]  # fmt: skip
Seed = Annotated[
    list[str] | None,
    o.option("--seed", panel=AXES, default="drawn", metavar="S…", help="The same as --seeds."),
]
Bos = Annotated[
    list[str] | None,
    o.option("--bos", panel=AXES, default="auto, as the tokenizer does", metavar="on|off|auto…",
    help="Add special tokens to the prompt; on,off for both."),
]  # fmt: skip
NoBos = Annotated[
    bool | None, o.switch("--no-bos", panel=AXES, help="The same as --bos off."),
]  # fmt: skip
Stop = Annotated[
    list[str] | None,
    o.option("--stop", panel=AXES, default=None, metavar="STRING",
    help="End the text before STRING (repeatable; no axis)."),
]  # fmt: skip
Greedy = Annotated[
    bool | None, o.switch("--greedy", panel=AXES, help="The same as -t 0."),
]  # fmt: skip
Out = Annotated[
    str | None,
    o.option(
        "--out", "-o", panel=o.OUTPUT, metavar="DIR",
        default="a new folder in decodecli-runs/; with --format jsonl none",
        help="Folder of the results; the same command goes on in it.",
    ),
]  # fmt: skip
Extend = Annotated[
    bool | None,
    o.switch("--extend", panel=o.OUTPUT,
    help="Add to the cells of --out DIR, which must all be among these."),
]  # fmt: skip
DryRun = Annotated[
    bool | None,
    o.switch("--dry-run", panel=RUN, help="Show the cells and an estimate; run nothing."),
]
BatchSize = Annotated[
    int | None,
    o.option("--batch-size", "-b", panel=RUN, default="16", metavar="N",
    help="Cells decoded together."),
]  # fmt: skip
Exact = Annotated[
    bool | None,
    o.switch("--exact", panel=RUN,
    help="Promise every cell the ids of generate alone, at a cost; see docs/SWEEP.md."),
]  # fmt: skip
Engine = Annotated[
    str | None,
    o.option("--engine", panel=RUN, default="local",
    help="Where cells run: here, or on a Ray cluster.", **o.choices("local", "ray")),
]  # fmt: skip
Address = Annotated[
    str | None,
    o.option("--address", panel=RUN, default="a cluster of this machine alone", metavar="ADDR",
    help="Of the Ray cluster; auto finds a running one."),
]  # fmt: skip
Actors = Annotated[
    int | None,
    o.option("--actors", panel=RUN, default="one a GPU, else by cores", metavar="N",
    help="Copies of the model on the cluster."),
]  # fmt: skip
Traces = Annotated[
    bool | None,
    o.switch(
        "--traces", panel=o.OUTPUT, help="Keep every step of every cell: traces/000123.jsonl."
    ),
]
Plots = Annotated[
    bool | None,
    o.switch("--plots/--no-plots", panel=o.OUTPUT, default="on", help="Draw plots/."),
]
Show = Annotated[
    bool | None,
    o.switch("--show", panel=o.OUTPUT, help="Show the texts side by side at the end."),
]
Candidates = Annotated[
    int | None,
    o.option("--candidates", "-c", panel=o.OUTPUT, default="10", metavar="N",
    help="Candidates of a trace's step."),
]  # fmt: skip

Temperature = Annotated[
    list[str] | None,
    _axis("--temperature", "-t", default="1.0", metavar="T…",
    help="Divides the logits; 0 is greedy."),
]  # fmt: skip
TopK = Annotated[
    list[str] | None,
    _axis("--top-k", default="0, off", metavar="K…", help="Keep the K most probable tokens."),
]
TopP = Annotated[
    list[str] | None,
    _axis("--top-p", default="1.0, off", metavar="P…", help="Keep the smallest set with mass P."),
]
MinP = Annotated[
    list[str] | None,
    _axis("--min-p", default="0, off", metavar="P…",
    help="Keep tokens with at least P of the top probability."),
]  # fmt: skip
TypicalP = Annotated[
    list[str] | None,
    _axis("--typical-p", default="1.0, off", metavar="P…",
    help="Keep mass P nearest the expected surprisal."),
]  # fmt: skip
EpsilonCutoff = Annotated[
    list[str] | None,
    _axis("--epsilon-cutoff", default="0, off", metavar="E…",
    help="Keep tokens with probability at least E."),
]  # fmt: skip
EtaCutoff = Annotated[
    list[str] | None,
    _axis("--eta-cutoff", default="0, off", metavar="E…",
    help="As epsilon, scaled down by the entropy."),
]  # fmt: skip
RepetitionPenalty = Annotated[
    list[str] | None,
    _axis("--repetition-penalty", default="1.0, off", metavar="R…",
    help="Penalise tokens already in the text."),
]  # fmt: skip
NoRepeatNgramSize = Annotated[
    list[str] | None,
    _axis("--no-repeat-ngram-size", default="0, off", metavar="N…",
    help="Never repeat N tokens in a row."),
]  # fmt: skip
MaxNewTokens = Annotated[
    list[str] | None,
    _axis("--max-new-tokens", "-n", default="40", metavar="N…",
    help="Tokens to generate at most."),
]  # fmt: skip


def sweep(
    prompt: Prompts = None,
    prompts: PromptFile = None,
    file: File = None,
    grid: GridName = None,
    zip: Zip = None,
    temperature: Temperature = None,
    greedy: Greedy = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical_p: TypicalP = None,
    epsilon_cutoff: EpsilonCutoff = None,
    eta_cutoff: EtaCutoff = None,
    repetition_penalty: RepetitionPenalty = None,
    no_repeat_ngram_size: NoRepeatNgramSize = None,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    seeds: Seeds = None,
    seed: Seed = None,
    bos: Bos = None,
    no_bos: NoBos = None,
    chat: c.Chat = None,
    system: c.System = None,
    allow_special: c.AllowSpecial = None,
    model: o.Model = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    quantize: o.Quantize = None,
    max_memory: o.MaxMemory = None,
    threads: o.Threads = None,
    allow_pickle: o.AllowPickle = None,
    trust_remote_code: o.TrustRemoteCode = None,
    dry_run: DryRun = None,
    batch_size: BatchSize = None,
    exact: Exact = None,
    engine: Engine = None,
    address: Address = None,
    actors: Actors = None,
    out: Out = None,
    extend: Extend = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    traces: Traces = None,
    candidates: Candidates = None,
    plots: Plots = None,
    show: Show = None,
    quiet: o.Quiet = None,
    verbose: o.Verbose = None,
    color: o.Color = None,
    debug: o.Debug = None,
    preset: o.Preset = None,
    config: o.Config = None,
) -> None:
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
    given = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    flags = {name: _joined(value) for name, value in given.items()}
    flags["stop"] = tuple(stop) if stop else None
    # Imported here, so that --help starts at once.
    from decodecli.cli.commands.sweep_run import Typed, sweep_command

    typed = Typed(
        prompts=tuple(prompt or ()),
        prompt_file=prompts,
        file=file,
        grid=grid,
        zips=tuple(zip or ()),
        flags=flags | {"seeds": _joined(seeds), "bos": _bos_flag(_joined(bos), no_bos)},
        dry_run=bool(dry_run),
        extend=bool(extend),
    )
    sweep_command(typed)


def _joined(value: Any) -> Any:
    """The value of an option; one that was given several times is one expression."""
    return ",".join(value) if isinstance(value, list) else value


def _bos_flag(bos: str | None, no_bos: bool | None) -> str | None:
    from decodecli.errors import UsageError

    if bos is not None and no_bos:
        raise UsageError("--bos and --no-bos were both given", "for both, write --bos on,off")
    return "off" if no_bos else bos
