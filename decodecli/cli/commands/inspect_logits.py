"""`decodecli inspect-logits`: one forward pass, and the next-token distribution laid open."""

from __future__ import annotations

from typing import Annotated

import typer

from decodecli.cli import chat_options as c
from decodecli.cli import options as o
from decodecli.cli import streams

FORMATS = ("table", "json", "jsonl", "csv")
COMPARE = "Compare"
_NOT_SETTINGS = {"prompt", "file", "temperature", "token", "target", "all_positions", "window"}
_NOT_SETTINGS |= {"stride", "compare_quantize", "compare_dtype", "compare_bos", "compare_model"}
_NOT_SETTINGS |= {"save", "plot", "plot_kind", "sort", "format", "debug"}

Prompts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROMPT…",
        show_default=False,
        help="What to continue; several side by side; - reads it from standard input. "
        r"[dim]\[default: Once upon a time,][/dim]",
    ),
]
Token = Annotated[
    list[str] | None,
    o.option(
        "--token",
        panel=o.OUTPUT,
        default=None,
        metavar="STR|ID",
        help="Where this stands as what comes next; repeatable. text:12 for digits as text.",
    ),
]
Target = Annotated[
    str | None,
    o.option(
        "--target", panel=o.OUTPUT, default=None, metavar="STR|ID", help="Add its cross-entropy."
    ),
]
AllPositions = Annotated[
    bool | None,
    o.switch("--all-positions", panel=o.INPUT, help="The prompt itself, token by token."),
]
Window = Annotated[
    int | None,
    o.option(
        "--window",
        panel=o.INPUT,
        default="the context, at most 1024",
        metavar="N",
        help="Tokens read at once.",
    ),
]
Stride = Annotated[
    int | None,
    o.option(
        "--stride", panel=o.INPUT, default="half the window", metavar="N", help="Between windows."
    ),
]
CompareQuantize = Annotated[
    str | None,
    o.option(
        "--compare-quantize",
        panel=COMPARE,
        default=None,
        metavar="A,B,…",
        help="Schemes side by side, as none,nf4,int8.",
    ),
]
CompareDtype = Annotated[
    str | None,
    o.option(
        "--compare-dtype",
        panel=COMPARE,
        default=None,
        metavar="A,B,…",
        help="Number types side by side, as float32,bfloat16.",
    ),
]
CompareModel = Annotated[
    str | None,
    o.option(
        "--compare-model",
        panel=COMPARE,
        default=None,
        metavar="A,B,…",
        help="Models with one vocabulary side by side.",
    ),
]
CompareBos = Annotated[
    bool | None,
    o.switch("--compare-bos", panel=COMPARE, help="With and without the BOS token."),
]
Sort = Annotated[
    str | None,
    o.option("--sort", panel=o.OUTPUT, default="rank",
    help="rank: the most probable first; given: only what --token names, in that order.",
    **o.choices("rank", "given")),
]  # fmt: skip
Save = Annotated[
    str | None,
    o.option(
        "--save",
        panel=o.OUTPUT,
        default=None,
        metavar="FILE",
        help="All logits with the token table: .safetensors, .npz, .csv or .json.",
    ),
]


def inspect_logits(
    prompt: Prompts = None,
    temperature: o.Temperatures = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    typical_p: o.TypicalP = None,
    epsilon_cutoff: o.EpsilonCutoff = None,
    eta_cutoff: o.EtaCutoff = None,
    repetition_penalty: o.RepetitionPenalty = None,
    no_repeat_ngram_size: o.NoRepeatNgramSize = None,
    bos: o.Bos = None,
    chat: c.Chat = None,
    system: c.System = None,
    allow_special: c.AllowSpecial = None,
    file: o.File = None,
    all_positions: AllPositions = None,
    window: Window = None,
    stride: Stride = None,
    model: o.Model = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    quantize: o.Quantize = None,
    max_memory: o.MaxMemory = None,
    threads: o.Threads = None,
    allow_pickle: o.AllowPickle = None,
    trust_remote_code: o.TrustRemoteCode = None,
    compare_quantize: CompareQuantize = None,
    compare_dtype: CompareDtype = None,
    compare_bos: CompareBos = None,
    compare_model: CompareModel = None,
    candidates: o.Candidates = None,
    token: Token = None,
    target: Target = None,
    sort: Sort = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    save: Save = None,
    plot: o.Plot = None,
    plot_kind: o.PlotKind = None,
    quiet: o.Quiet = None,
    verbose: o.Verbose = None,
    color: o.Color = None,
    debug: o.Debug = None,
    preset: o.Preset = None,
    config: o.Config = None,
) -> None:
    """See the distribution of the next token, at several temperatures side by side.

    [bold]Examples[/bold]

      decodecli inspect-logits "The capital of Japan is" -t 0.4,1.0,1.6

      decodecli inspect-logits "The capital of Japan is" --token " Tokyo" --token " Kyoto"

      decodecli inspect-logits "Once upon a time" --top-p 0.9 --plot panel.png -t 0.4,1.0,1.6

      decodecli inspect-logits "The capital of Japan is" "The capital of Italy is" -t 0.4,1.0

      decodecli inspect-logits "Who are you?" --chat -m ./chat-model

      decodecli inspect-logits --file essay.txt --all-positions

      decodecli inspect-logits "Long, long ago," --compare-quantize none,nf4,int8
    """
    flags = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    from decodecli.cli.commands import inspect_run as inspecting
    from decodecli.config import resolve

    effective = resolve(flags)
    asked = inspecting.Asked(
        effective=effective,
        temperatures=tuple(inspecting.temperatures(temperature, effective)),
        tokens=tuple(token or ()),
        target=target,
        sort=sort or "rank",
        all_positions=bool(all_positions),
        window=window,
        stride=stride,
        comparisons={
            "quantize": compare_quantize,
            "dtype": compare_dtype,
            "bos": "bos,no-bos" if compare_bos else None,
            "model": compare_model,
        },
        format=format or "table",
        many=bool(temperature),
        save=save,
        plot=plot,
        plot_kind=plot_kind,
    )
    tell = streams.Notices(effective.output().quiet).tell
    text, is_default = streams.read_prompt(prompt[0] if prompt else None, file, tell)
    texts = [text, *(streams.read_prompt(other, None, tell)[0] for other in (prompt or ())[1:])]
    inspecting.run(asked, texts, is_default, from_file=file is not None)
