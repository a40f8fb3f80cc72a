"""`generate --num-beams`: a beam search, shown as it happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from decodecli.cli import streams
from decodecli.cli.color import console
from decodecli.cli.output import is_byte_level, style_of
from decodecli.cli.pace import Pace
from decodecli.errors import UsageError, WriteError
from decodecli.ranges import flag_name
from decodecli.records.beams import BeamRun, summary_dict
from decodecli.records.json_lines import to_json_line
from decodecli.render.escaping import safe_text
from decodecli.render.run_files import TraceFile
from decodecli.signals import postponed
from decodecli.stages import OF_SCORES_ALONE

if TYPE_CHECKING:
    from decodecli.cli.commands.generate import GenerateRequest
    from decodecli.decoding.prompt import PrefilledPrompt

DOT = ".dot"


def check(request: GenerateRequest) -> None:
    """Refuse what does not go with beams, before a model is loaded.

    Raises:
        UsageError: naming it.
    """
    output = request.output
    others = {
        "--watch": request.watch, "--what-if": request.what_if, "--explain": request.explain,
        "--stages all": request.stages == "all", "--save-logits": output.save_logits,
        "--html": request.html, "--num-samples": output.num_samples > 1,
    }  # fmt: skip
    for flag, given in others.items():
        if given:
            hint = "--num-return-sequences gives several texts" if "samples" in flag else ""
            raise UsageError(
                f"{flag} shows one text, and a beam search has several",
                hint or "leave one of them out",
            )
    if request.plot is not None and Path(request.plot).suffix.lower() != DOT:
        from decodecli.render.plots.figure_file import SUFFIXES, check_matplotlib

        if Path(request.plot).suffix.lower() not in SUFFIXES:
            problem = f"--plot {request.plot}: the file name must end in .svg, .png, .pdf or .dot"
            raise UsageError(problem, "the tree of beams is drawn there")
        check_matplotlib(otherwise="a name in .dot, which needs nothing")


def search(
    prefix: PrefilledPrompt,
    request: GenerateRequest,
    trace: TraceFile | None,
    notices: streams.Notices,
    pace: Pace,
) -> None:
    """Search, with every step on its way to the screen, the trace and stdout.

    Raises:
        WriteError: the trace or the picture could not be written.
    """
    from decodecli.decoding.beam_search import BeamSearch
    from decodecli.render.terminal.beam_tables import BeamView, beam_header_lines

    output, effective = request.output, request.effective
    if not request.beams.beam_sample:
        drawing = ["temperature", *OF_SCORES_ALONE]
        typed = [
            n for n in drawing if effective.sources[n] == "flag" and not request.sampling.greedy
        ]
        if typed:
            names = ", ".join(map(flag_name, typed))
            notices.tell(f"beams take the best: {names} has no effect; --beam-sample draws them")
    sources = {k: v for k, v in effective.sources.items() if k not in ("preset", "config")}
    beams = BeamSearch(
        prefix, request.sampling, request.beams,
        seed=request.seed, sources=sources, recorded=request.recorded(),
    )  # fmt: skip
    writers: list[Callable[[str], object]] = [trace.write] if trace else []
    if output.format == "jsonl":
        writers.append(lambda line: streams.write_stdout(f"{line}\n"))
    at_terminal = streams.is_terminal(sys.stdout)
    tables = output.tables or ("full" if at_terminal and not output.quiet else "none")
    as_text = output.format == "text"
    on_stdout = as_text and (
        (at_terminal and not output.quiet)
        or (tables != "none" and (at_terminal or streams.in_one_place()))
    )
    view = None
    if on_stdout or tables != "none":
        screen = console(streams.unbuffered(sys.stdout if on_stdout else sys.stderr))
        view = BeamView(screen, tables, is_byte_level(prefix.lm), output.candidates)
        view.start(beams.header)
    elif not output.quiet:
        for line in beam_header_lines(beams.header, style_of(sys.stderr)):
            streams.tell(line)

    def write(record: dict[str, object]) -> None:
        for writer in writers:
            writer(to_json_line(record))

    write(beams.header.as_dict())
    steps = []
    with postponed(beams.interrupt):  # the first Ctrl-C ends the search after the step under way
        for step in beams:
            steps.append(step)
            write(step.as_dict())
            if view is not None:
                view.step(step)
            if not pace.wait(lambda: beams.interrupted):
                beams.interrupt()
    run = BeamRun(beams.header, tuple(steps), beams.hypotheses, beams.summary())
    write(summary_dict(run.summary, run.hypotheses))
    if as_text and not on_stdout:
        for hypothesis in run.hypotheses:
            text = hypothesis.text
            streams.write_stdout((safe_text(text) if at_terminal else text) + "\n")
    if view is not None:
        view.finish(run)
    if request.plot is not None:
        _draw(run, request.plot, notices)
    if trace is not None and trace.problem is not None:
        raise trace.problem


def _draw(run: BeamRun, path: str, notices: streams.Notices) -> None:
    from decodecli.render.plots.beams import beam_figure, dot
    from decodecli.render.plots.figure_file import save_figure, write_file

    if not Path(os.path.expanduser(path)).parent.is_dir():
        raise WriteError(f"cannot write {path}: its folder is not there", "make it first")
    if Path(path).suffix.lower() == DOT:
        write_file(path, dot(run).encode())
    else:
        save_figure(path, lambda: beam_figure(run))
    notices.tell(f"the beams are drawn in {path}")
