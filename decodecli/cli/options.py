"""The options that mean the same thing wherever they appear.

Every option's default is None here: what was not given is looked up by `config.resolve`, and the
default that a person sees in `--help` is written in `show_default`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from decodecli.cli import streams

MODEL, DECODING, OUTPUT, CONFIG = "Model", "Decoding", "Output", "Settings"
INPUT = "Input"


def option(*names: str, panel: str, default: str | None, **more: Any) -> Any:
    """A `typer.Option` in a help panel, with the default spelt out (None: nothing to show)."""
    if default is not None:
        more["help"] += rf" [dim]\[default: {default}][/dim]"
    return typer.Option(*names, rich_help_panel=panel, show_default=False, **more)


def switch(*names: str, panel: str, default: str = "off", **more: Any) -> Any:
    """An option without a value."""
    return option(*names, panel=panel, default=default, metavar="", **more)


def choices(*values: str) -> dict[str, Any]:
    """Shown and completed choices; settings check them."""
    return {
        "metavar": "|".join(values),
        "autocompletion": lambda incomplete: [v for v in values if v.startswith(incomplete)],
    }


def _presets(incomplete: str) -> list[str]:
    from decodecli.config import preset_names

    return [name for name in preset_names() if name.startswith(incomplete)]


Prompt = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT",
        show_default=False,
        help="What to continue; - reads it from standard input. "
        r"[dim]\[default: Once upon a time,][/dim]",
    ),
]
File = Annotated[
    str | None,
    option(
        "--file", "-f", panel=OUTPUT, default=None, metavar="FILE", help="Read the text from FILE."
    ),
]
Model = Annotated[
    str | None,
    option(
        "--model", "-m", panel=MODEL, default="builtin", metavar="NAME_OR_PATH",
        help="Hub name or local folder of a causal language model.",
    ),
]  # fmt: skip
Revision = Annotated[
    str | None,
    option(
        "--revision",
        panel=MODEL,
        default="main",
        metavar="REV",
        help="Branch, tag or commit on the hub.",
    ),
]
Device = Annotated[
    str | None,
    option("--device", panel=MODEL, default="auto",
    help="Where to run.", **choices("auto", "cuda", "cuda:N", "mps", "cpu")),
]  # fmt: skip
Dtype = Annotated[
    str | None,
    option(
        "--dtype", panel=MODEL, default="auto",
        help="Number type of the weights. auto: float32 below 1 B parameters, else as stored.",
        **choices("auto", "float32", "bfloat16", "float16"),
    ),
]  # fmt: skip
Quantize = Annotated[
    str | None,
    option(
        "--quantize", "-q", panel=MODEL, default="auto",
        help="Weights in 4 or 8 bits. auto: nf4 on a GPU from 1 B parameters.",
        **choices("auto", "none", "nf4", "fp4", "int8"),
    ),
]  # fmt: skip
MaxMemory = Annotated[
    str | None,
    option(
        "--max-memory", panel=MODEL, default="all that is free", metavar="DEV=SIZE,…",
        help="What each device may hold, as 0=10GiB,cpu=30GiB.",
    ),
]  # fmt: skip
Threads = Annotated[
    int | None,
    option(
        "--threads", panel=MODEL, default="by the model's size", metavar="N",
        help="Threads on a CPU; goes before OMP_NUM_THREADS.",
    ),
]  # fmt: skip
AllowPickle = Annotated[
    bool | None,
    switch(
        "--allow-pickle",
        panel=MODEL,
        default="off",
        help="Load pickled weights (they can run code).",
    ),
]
TrustRemoteCode = Annotated[
    bool | None,
    switch(
        "--trust-remote-code",
        panel=MODEL,
        default="off",
        help="Run Python code that comes with the model.",
    ),
]

MaxNewTokens = Annotated[
    int | None,
    option(
        "--max-new-tokens",
        "-n",
        panel=DECODING,
        default="40",
        metavar="N",
        help="Tokens to generate at most.",
    ),
]
Temperature = Annotated[
    float | None,
    option(
        "--temperature",
        "-t",
        panel=DECODING,
        default="1.0",
        metavar="T",
        help="Divides the logits; 0 is greedy.",
    ),
]
Temperatures = Annotated[
    list[str] | None,
    option(
        "--temperature",
        "-t",
        panel=DECODING,
        default="1.0",
        metavar="T,T,…",
        help="One column each; repeatable or with commas. 0 is the limit.",
    ),
]
Greedy = Annotated[
    bool | None,
    switch(
        "--greedy",
        panel=DECODING,
        default="off",
        help="The most probable token every time; the same as -t 0.",
    ),
]
TopK = Annotated[
    int | None,
    option(
        "--top-k",
        panel=DECODING,
        default="0, off",
        metavar="K",
        help="Keep the K most probable tokens.",
    ),
]
TopP = Annotated[
    float | None,
    option(
        "--top-p",
        panel=DECODING,
        default="1.0, off",
        metavar="P",
        help="Keep the smallest set with mass P (nucleus).",
    ),
]
MinP = Annotated[
    float | None,
    option(
        "--min-p",
        panel=DECODING,
        default="0, off",
        metavar="P",
        help="Keep tokens with at least P of the top probability.",
    ),
]
TypicalP = Annotated[
    float | None,
    option(
        "--typical-p",
        panel=DECODING,
        default="1.0, off",
        metavar="P",
        help="Keep mass P nearest the expected surprisal.",
    ),
]
EpsilonCutoff = Annotated[
    float | None,
    option(
        "--epsilon-cutoff",
        panel=DECODING,
        default="0, off",
        metavar="E",
        help="Keep tokens with probability at least E.",
    ),
]
EtaCutoff = Annotated[
    float | None,
    option(
        "--eta-cutoff",
        panel=DECODING,
        default="0, off",
        metavar="E",
        help="As epsilon, scaled down by the entropy.",
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    option(
        "--repetition-penalty",
        panel=DECODING,
        default="1.0, off",
        metavar="R",
        help="Penalise tokens already in the text.",
    ),
]
NoRepeatNgramSize = Annotated[
    int | None,
    option(
        "--no-repeat-ngram-size",
        panel=DECODING,
        default="0, off",
        metavar="N",
        help="Never repeat N tokens in a row.",
    ),
]
Stop = Annotated[
    list[str] | None,
    option(
        "--stop",
        panel=DECODING,
        default=None,
        metavar="STRING",
        help="End the text before STRING (repeatable).",
    ),
]
Seed = Annotated[
    int | None,
    option(
        "--seed",
        panel=DECODING,
        default="drawn and shown",
        metavar="S",
        help="Repeats a run; 0 to 4294967295.",
    ),
]
NumSamples = Annotated[
    int | None,
    option(
        "--num-samples",
        panel=DECODING,
        default="1",
        metavar="N",
        help="N runs, with seeds S, S+1, …; one prefill.",
    ),
]
Bos = Annotated[
    bool | None,
    switch(
        "--bos/--no-bos",
        panel=DECODING,
        default="as the tokenizer does",
        help="Add special tokens to the prompt.",
    ),
]

Candidates = Annotated[
    int | None,
    option(
        "--candidates",
        "-c",
        panel=OUTPUT,
        default="10",
        metavar="N",
        help="Rows of a step's table.",
    ),
]
Tables = Annotated[
    str | None,
    option(
        "--tables", panel=OUTPUT, default="full on a terminal, else none",
        help="A table a step, a line a step, or neither.",
        **choices("full", "line", "none"),
    ),
]  # fmt: skip
Delay = Annotated[
    float | None,
    option(
        "--delay",
        panel=OUTPUT,
        default="0",
        metavar="SECONDS",
        help="Wait after each token.",
    ),
]
Pause = Annotated[
    bool | None,
    switch(
        "--pause",
        panel=OUTPUT,
        help="Wait for a key: space or enter shows the next token, c goes on, q ends.",
    ),
]
Trace = Annotated[
    str | None,
    option(
        "--trace",
        panel=OUTPUT,
        default=None,
        metavar="FILE",
        help="Write every number of the run to FILE (JSONL).",
    ),
]
SaveLogits = Annotated[
    str | None,
    option(
        "--save-logits",
        panel=OUTPUT,
        default=None,
        metavar="FILE.npy",
        help="Write every step's logits to FILE.npy, float32.",
    ),
]
Plot = Annotated[
    str | None,
    option(
        "--plot",
        panel=OUTPUT,
        default=None,
        metavar="FILE",
        help="Draw to a .png, .svg or .pdf; - draws in the terminal.",
    ),
]
TextPlot = Annotated[
    str | None,
    option(
        "--plot",
        panel=OUTPUT,
        default=None,
        metavar="FILE",
        help="The text in its colours as a picture: .png, .svg, .pdf or .html.",
    ),
]
PlotKind = Annotated[
    str | None,
    option(
        "--plot-kind",
        panel=OUTPUT,
        default="auto: bars, or a panel for several temperatures",
        help="What to draw.",
        **choices("auto", "bars", "panel", "lines", "tokens", "cumulative", "entropy"),
    ),
]
Quiet = Annotated[
    bool | None,
    switch("--quiet", panel=OUTPUT, help="Only the result: no notices and no progress."),
]
QuietText = Annotated[
    bool | None,
    switch("--quiet", panel=OUTPUT,
    help="Only the text: no notices, no progress, no tables but those of --tables."),
]  # fmt: skip
Color = Annotated[
    str | None,
    option("--color", panel=OUTPUT, default="auto, on a terminal",
    help="Colour what is shown; never a bare text, JSON or CSV.", **choices("auto", "always", "never")),
]  # fmt: skip
Verbose = Annotated[
    bool | None,
    switch(
        "--verbose", panel=OUTPUT, default="off", help="Let the libraries' own log lines through."
    ),
]
Debug = Annotated[
    bool | None,
    switch("--debug", panel=OUTPUT, default="off", help="Show a traceback on errors."),
]

Preset = Annotated[
    str | None,
    option(
        "--preset", "-p", panel=CONFIG, default=None, metavar="NAME",
        help="A named setting; see decodecli presets.",
        autocompletion=_presets,
    ),
]  # fmt: skip
Config = Annotated[
    str | None,
    option(
        "--config", panel=CONFIG, default=None, metavar="FILE", help="Options from a TOML file."
    ),
]


def text_or(*formats: str) -> Any:
    """The `--format` option of a command that can print these."""
    return Annotated[
        str | None,
        option("--format", panel=OUTPUT, default=formats[0],
        help="What goes to stdout.", **choices(*formats)),
    ]  # fmt: skip


def _show_version(wanted: bool | None) -> None:
    if wanted:
        from decodecli import __version__

        streams.write_stdout(f"decodecli {__version__}\n")
        raise typer.Exit


Version = Annotated[
    bool | None,
    typer.Option(
        "--version",
        "-V",
        help="Show the version and exit.",
        is_eager=True,
        callback=_show_version,
        show_default=False,
    ),
]
