"""`decodecli bench`: how fast this model decodes on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import OUTPUT, Option, command
from decodecli.cli.loading_line import load_model, loading_line
from decodecli.cli.output import write_json
from decodecli.library_logging import quiet_libraries
from decodecli.ranges import check_positive

if TYPE_CHECKING:
    from decodecli.analysis.speed import SpeedReport
    from decodecli.config import Effective

TOKENS = Option(
    "tokens", int, OUTPUT, "Tokens of one run.", "N", "by the model's size, 16 to 160"
)  # fmt: skip
REPEAT = Option(
    "repeat", int, OUTPUT, "Repetitions of each side; the sides take turns.", "N", "5"
)  # fmt: skip


@command(
    *(o.MODEL_NAME, o.REVISION, o.DEVICE, o.DTYPE, o.QUANTIZE, o.THREADS, o.LOADER, TOKENS, REPEAT),
    *(o.format_of("text", "json"), o.QUIET, o.VERBOSE, o.COLOR, o.DEBUG),
)
def bench(
    effective: Effective, tokens: int | None = None, repeat: int = 5, format: str = "text"
) -> None:
    """Measure how fast a model decodes here: with and without the trace, against transformers' generate.

    Tokens/s of decoding alone, medians of runs that take turns, and the share of the memory's bandwidth
    that decoding reaches. Nothing else should run meanwhile.

    [bold]Examples[/bold]

      decodecli bench

      decodecli bench -m ./my-model -q nf4 --tokens 64

      decodecli bench --dtype bfloat16 --threads 2 --format json
    """
    if tokens is not None:
        check_positive("tokens", tokens, "128 is a usual choice", lowest=4)
    check_positive("repeat", repeat, "5 is the default")
    output, params = effective.output(), effective.load()
    with (
        quiet_libraries(output.verbose),
        loading_line(params.model, output, libraries=True) as progress,
    ):
        lm = load_model(params, output, progress)
        from decodecli.analysis.speed import measure_speed

        progress("measuring")
        report = measure_speed(lm, tokens, repeat)
    if format == "json":
        write_json(report.as_dict())
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
