"""`decodecli bench`: how fast this model decodes on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from decodecli.cli import options as o
from decodecli.cli import streams

if TYPE_CHECKING:
    from decodecli.analysis.speed import SpeedReport

FORMATS = ("text", "json")

Tokens = Annotated[
    int | None,
    o.option("--tokens", panel=o.OUTPUT, default="by the model's size, 16 to 160", metavar="N",
    help="Tokens of one run."),
]  # fmt: skip
Repeat = Annotated[
    int | None,
    o.option("--repeat", panel=o.OUTPUT, default="5", metavar="N",
    help="Repetitions of each side; the sides take turns."),
]  # fmt: skip


def bench(
    model: o.Model = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    quantize: o.Quantize = None,
    threads: o.Threads = None,
    tokens: Tokens = None,
    repeat: Repeat = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    quiet: o.Quiet = None,
    verbose: o.Verbose = None,
    color: o.Color = None,
    debug: o.Debug = None,
) -> None:
    """Measure how fast a model decodes here: with and without the trace, against transformers' generate.

    Tokens/s of decoding alone, medians of runs that take turns, and the share of the memory's bandwidth
    that decoding reaches. Nothing else should run meanwhile.

    [bold]Examples[/bold]

      decodecli bench

      decodecli bench -m ./my-model -q nf4 --tokens 64

      decodecli bench --dtype bfloat16 --threads 2 --format json
    """
    from decodecli.cli.run import loading_line
    from decodecli.config import resolve
    from decodecli.library_logging import quiet_libraries
    from decodecli.settings import check_choice, check_positive

    check_choice("format", format or "text", FORMATS)
    if tokens is not None:
        check_positive("tokens", tokens, "128 is a usual choice", lowest=4)
    repeat = check_positive("repeat", 5 if repeat is None else repeat, "5 is the default")
    names = ("model", "revision", "device", "dtype", "quantize", "threads", "quiet", "verbose")
    values = (model, revision, device, dtype, quantize, threads, quiet, verbose)
    effective = resolve(dict(zip(names, values, strict=True)))
    output = effective.output()
    with (
        quiet_libraries(output.verbose),
        loading_line(effective.load().model, output, libraries=True) as progress,
    ):
        from decodecli.analysis.speed import measure_speed
        from decodecli.models.loading import load

        lm = load(effective.load(), progress=progress, auto_threads=True)
        progress("measuring")
        report = measure_speed(lm, tokens, repeat)
    if format == "json":
        from decodecli.records.run import to_json_line

        streams.write_stdout(to_json_line(report.as_dict()) + "\n")
    else:
        streams.write_stdout(_text(report))


def _text(report: SpeedReport) -> str:
    """A line a side, and the bandwidth."""
    from decodecli.analysis.speed import GENERATE

    info, peer = report.model, report.samples[GENERATE].median
    lines = [
        f"{info['name']} · {info['dtype']} · {info['device']} · quantize {info['quantize']} · "
        f"{report.threads} thread{'s' if report.threads != 1 else ''} · {report.tokens} tokens a run",
        "",
    ]
    for name, samples in report.samples.items():
        low, high = samples.quartiles
        times = "" if name == GENERATE else f"{samples.median / peer:6.2f} x generate"
        lines.append(
            f"{name:22}{samples.median:9,.1f} tokens/s  ({low:,.1f} to {high:,.1f}){times}".rstrip()
        )
    lines += [
        "",
        f"a token reads {report.megabytes_per_token:,.1f} MB; the memory gives "
        f"{report.memory.median:,.1f} GB/s: {report.bandwidth_share:.0%} of it is used",
    ]
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return ("\n".join(lines) + "\n").encode(encoding, "replace").decode(encoding)
