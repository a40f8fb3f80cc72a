"""`python -m benchmarks`: speed as ratios against named peers, measured in one run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.boundary import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.plan import Plan
    from benchmarks.report import Report
    from decodecli.models.loading import LanguageModel
    from decodecli.settings import SamplingParams

FORMATS = ("text", "json", "markdown")
MEASURE = "Measuring"
_SHAPES = ("builtin", "gpt2", "llama-1b", "llama-8b")
_SECTIONS = (
    "decode", "trace", "bandwidth", "sweep", "llama", "load", "sampler", "start", "neighbours", "memory",
)  # fmt: skip

Shapes = Annotated[
    list[str] | None,
    o.option(
        "--shape", panel=o.MODEL, default="builtin, gpt2, llama-1b; on a GPU builtin, llama-8b",
        help=f"Random weights in a public shape, nothing downloaded (repeatable): {', '.join(_SHAPES)}.",
        **{**o.choices(*_SHAPES), "metavar": "NAME"},
    ),
]  # fmt: skip
RealModel = Annotated[
    str | None,
    o.option(
        "--model", "-m", panel=o.MODEL, default="none: the shapes", metavar="NAME_OR_PATH",
        help="A real model instead of shapes.",
    ),
]  # fmt: skip
Dtypes = Annotated[
    list[str] | None,
    o.option(
        "--dtype", panel=o.MODEL, default="float32 and bfloat16; on a GPU bfloat16",
        help="Number type of the weights (repeatable).",
        **o.choices("float32", "bfloat16", "float16"),
    ),
]  # fmt: skip
Schemes = Annotated[
    list[str] | None,
    o.option(
        "--quantize", "-q", panel=o.MODEL, default="none and nf4",
        help="Weights in 4 or 8 bits (repeatable).", **o.choices("none", "nf4", "fp4", "int8"),
    ),
]  # fmt: skip
Threads = Annotated[
    int | None,
    o.option("--threads", panel=MEASURE, default="as each program chooses", metavar="N",
    help="Threads of every side."),
]  # fmt: skip
Tokens = Annotated[
    int | None,
    o.option("--tokens", panel=MEASURE, default="by the model's size, 16 to 160", metavar="N",
    help="Tokens of one decoding."),
]  # fmt: skip
Repeat = Annotated[
    int | None,
    o.option("--repeat", panel=MEASURE, default="5", metavar="N",
    help="Repetitions of each side; the sides take turns."),
]  # fmt: skip
Only = Annotated[
    list[str] | None,
    o.option("--only", panel=MEASURE, default="all", metavar="SECTION",
    help=f"Sections to run (repeatable): {', '.join(_SECTIONS)}.",
    autocompletion=lambda incomplete: [s for s in _SECTIONS if s.startswith(incomplete)]),
]  # fmt: skip
Quick = Annotated[
    bool | None,
    o.switch("--quick", panel=MEASURE, help="One short repetition of everything: does it work?"),
]
Check = Annotated[
    bool | None,
    o.switch("--check", panel=MEASURE, help="Exit with 1 when a target does not hold."),
]
ReportFile = Annotated[
    str | None,
    o.option("--report", panel=o.OUTPUT, default=None, metavar="FILE",
    help="Also write the report to FILE, ending in .md or .json."),
]  # fmt: skip


def bench(
    shape: Shapes = None,
    model: RealModel = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: Dtypes = None,
    quantize: Schemes = None,
    threads: Threads = None,
    tokens: Tokens = None,
    repeat: Repeat = None,
    only: Only = None,
    quick: Quick = None,
    check: Check = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    report: ReportFile = None,
    quiet: o.Quiet = None,
    debug: o.Debug = None,
) -> None:
    """Measure speed as ratios against named peers, in one run: the sides take turns; medians and spread.

    Every model runs with the full trace against transformers' generate on the same weights. A target
    beside a ratio says what it should be. Only the command line counts, not your settings.

    [bold]Examples[/bold]

      python -m benchmarks --quick

      python -m benchmarks --shape gpt2 --only decode --only trace

      python -m benchmarks --shape llama-8b --device cuda --format json

      python -m benchmarks -m ./my-model -q nf4 --tokens 64
    """
    from benchmarks.plan import Plan
    from decodecli.settings import check_choice

    chosen = format or "text"
    check_choice("format", chosen, FORMATS)
    plan = Plan(
        shapes=tuple(shape or ()),
        model=model,
        revision=revision,
        dtypes=tuple(dtype or ()),
        quantize=tuple(quantize or ()),
        device=device or "auto",
        threads=threads,
        tokens=tokens,
        repeat=5 if repeat is None else repeat,
        only=tuple(only or ()),
        quick=bool(quick),
    )
    path = None if report is None else _writable(report)
    found = _measure(plan, chosen, path, bool(quiet))
    if check and found.missed:
        from decodecli.errors import DecodecliError

        missed = found.missed[0]
        raise DecodecliError(
            f"targets that do not hold: {len(found.missed)}, the first {missed.section}: {missed.what}",
            "the report says by how much; a busy machine is one reason",
        )


def _measure(plan: Plan, format: str, path: str | None, quiet: bool) -> Report:
    """Run the plan; what was measured is shown even when Ctrl-C cuts it short."""
    from benchmarks.run import Bench

    with _progress(quiet) as tell:
        running = Bench(plan, drawn, tell)
        running.report.command = repeating(plan)
        try:
            for _ in running.rows():
                if path is not None:  # after every row: a long run may be killed
                    _write(running.report, path)
        except KeyboardInterrupt:
            tell("")
            streams.write_stdout(_shown(running.report, format))
            raise
    streams.write_stdout(_shown(running.report, format))
    return running.report


def drawn(lm: LanguageModel, prompt: Sequence[int], params: SamplingParams, stream: Any) -> None:
    """Decode and draw as `generate` does, with `stream` as its terminal."""
    from contextlib import redirect_stdout
    from dataclasses import fields

    from decodecli.cli import run as running
    from decodecli.cli.sinks import Sinks
    from decodecli.config import Effective
    from decodecli.decoding.decode import prefill
    from decodecli.models.detokenize import tokenizer_kind
    from decodecli.settings import LoadParams, OutputParams

    values = {field.name: field.default for field in fields(LoadParams)}
    values |= {field.name: getattr(params, field.name) for field in fields(params)}
    effective = Effective(values, dict.fromkeys(values, "default"))
    output = OutputParams(tables="full")
    with redirect_stdout(stream):
        sinks = Sinks(output, None, tokenizer_kind(lm.tokenizer) == "byte_level")
        try:
            start = prefill(lm, prompt)
            running._run(start, params, effective, output, sinks, streams.Notices(True))
        finally:
            sinks.close()


def repeating(plan: Plan) -> tuple[str, ...]:
    """The words of a command that runs this plan again."""
    import shlex

    words = ["python", "-m", "benchmarks"]
    for option, values in (
        ("--shape", plan.shapes),
        ("--dtype", plan.dtypes),
        ("--quantize", plan.quantize),
        ("--only", plan.only),
    ):
        for value in values:
            words += [option, value]
    for option, given in (
        ("--model", plan.model),
        ("--revision", plan.revision),
        ("--device", None if plan.device == "auto" else plan.device),
        ("--threads", plan.threads),
        ("--tokens", plan.tokens),
        ("--repeat", None if plan.repeat == 5 else plan.repeat),
    ):
        if given is not None:
            words += [option, shlex.quote(str(given))]
    return (*words, *(["--quick"] if plan.quick else []))


def _writable(path: str) -> str:
    from pathlib import Path

    from decodecli.errors import UsageError

    if not path.endswith((".md", ".json")):
        raise UsageError(f"--report must end in .md or .json, got {path}", "bench.md, for example")
    if not Path(path).parent.is_dir():
        raise UsageError(
            f"--report {path}: {Path(path).parent} is no folder to write in",
            "give a file name in a folder that exists",
        )
    return path


def _write(report: Report, path: str) -> None:
    from pathlib import Path

    from decodecli.errors import WriteError

    text = _shown(report, "json" if path.endswith(".json") else "markdown")
    try:
        Path(path).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error


def _shown(report: Report, format: str) -> str:
    """The report in one of `FORMATS`."""
    import json

    from benchmarks.drawing import as_markdown, as_text

    if format == "json":
        return json.dumps(report.as_dict(), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    if format == "markdown":
        return as_markdown(report)
    from rich.console import Console

    console = Console(file=sys.stdout)
    width = console.width if console.is_terminal else max(console.width, 100)
    colour = console.is_terminal and not console.no_color
    return as_text(report, width, colour, console.encoding)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """What is being measured, on stderr where a person is looking; still, for a spinner takes time
    from what is measured."""
    if quiet or not streams.is_terminal(sys.stderr):
        yield lambda words: None
        return

    def tell(words: str) -> None:
        sys.stderr.write("\r\x1b[K" + streams.printable(words))
        sys.stderr.flush()

    try:
        yield tell
    finally:
        tell("")


app = typer.Typer(cls=Program, rich_markup_mode="rich", pretty_exceptions_show_locals=False)
app.callback(invoke_without_command=True)(bench)

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `decodecli` does, before torch
    app(prog_name="python -m benchmarks")
