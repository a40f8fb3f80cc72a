"""`python -m benchmarks`: speed as ratios against named peers, measured in one run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.boundary import Program
from decodecli.cli.command import MODEL, OUTPUT, Option, command

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


OPTIONS = (
    Option("shape", str, MODEL,
         f"Random weights in a public shape, nothing downloaded (repeatable): {', '.join(_SHAPES)}.",
         "NAME", "builtin, gpt2, llama-1b; on a GPU builtin, llama-8b", choices=_SHAPES, several=True),
    Option("model", str, MODEL, "A real model instead of shapes.", "NAME_OR_PATH", "none: the shapes",
         flags="-m"),
    o.REVISION,
    o.DEVICE,
    Option("dtype", str, MODEL, "Number type of the weights (repeatable).",
         default="float32 and bfloat16; on a GPU bfloat16", several=True,
         choices=("float32", "bfloat16", "float16")),
    Option("quantize", str, MODEL, "Weights in 4 or 8 bits (repeatable).", default="none and nf4",
         flags="-q", several=True, choices=("none", "nf4", "fp4", "int8")),
    Option("threads", int, MEASURE, "Threads of every side.", "N", "as each program chooses"),
    Option("tokens", int, MEASURE, "Tokens of one decoding.", "N", "by the model's size, 16 to 160"),
    Option("repeat", int, MEASURE, "Repetitions of each side; the sides take turns.", "N", "5"),
    Option("only", str, MEASURE, f"Sections to run (repeatable): {', '.join(_SECTIONS)}.", "SECTION",
         "all", several=True, choices=_SECTIONS),
    Option("quick", bool, MEASURE, "One short repetition of everything: does it work?"),
    Option("check", bool, MEASURE, "Exit with 1 when a target does not hold."),
    o.format_of(*FORMATS),
    Option("report", str, OUTPUT, "Also write the report to FILE, ending in .md or .json.", "FILE"),
    o.QUIET,
    o.DEBUG,
)  # fmt: skip


@command(*OPTIONS)
def bench(
    shape: tuple[str, ...] = (),
    model: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: tuple[str, ...] = (),
    quantize: tuple[str, ...] = (),
    threads: int | None = None,
    tokens: int | None = None,
    repeat: int = 5,
    only: tuple[str, ...] = (),
    quick: bool = False,
    check: bool = False,
    format: str = "text",
    report: str | None = None,
    quiet: bool = False,
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
    from decodecli.ranges import check_choice

    check_choice("format", format, FORMATS)
    plan = Plan(
        shapes=shape,
        model=model,
        revision=revision,
        dtypes=dtype,
        quantize=quantize,
        device=device,
        threads=threads,
        tokens=tokens,
        repeat=repeat,
        only=only,
        quick=quick,
    )
    path = None if report is None else _writable(report)
    found = _measure(plan, format, path, quiet)
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

    from decodecli.cli.commands.generate import GenerateRequest, run_samples
    from decodecli.cli.output import is_byte_level
    from decodecli.cli.sinks import Sinks
    from decodecli.config import resolve
    from decodecli.decoding.prompt import prefill
    from decodecli.settings import OutputParams

    output = OutputParams(tables="full")
    settings = {**vars(params), "tables": "full", "seed": params.seed or 0}
    request = GenerateRequest(resolve(settings, {}))
    with redirect_stdout(stream):
        sinks = Sinks(output, None, is_byte_level(lm))
        try:
            start = prefill(lm, prompt)
            run_samples(start, request, sinks, streams.Notices(True))
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
