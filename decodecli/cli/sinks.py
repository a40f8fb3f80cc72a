"""Where a run's records go: the text, the trace's lines, a screen; decided once from the options and the
streams."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from decodecli.cli import streams
from decodecli.cli.color import console
from decodecli.cli.output import style_of, write_csv
from decodecli.errors import DecodecliError
from decodecli.records.json_lines import step_json_line, to_json_line
from decodecli.records.run import (
    STEP_COLUMNS,
    Run,
    RunHeader,
    RunSummary,
    Step,
)
from decodecli.render.escaping import safe_text
from decodecli.render.run_files import TraceFile, sample_path
from decodecli.settings import OutputParams

if TYPE_CHECKING:
    from decodecli.records.run_curves import StepCurve
    from decodecli.render.terminal.background_renderer import BackgroundRenderer
    from decodecli.render.terminal.step_table import Style
    from decodecli.render.terminal.view import TerminalView


class Sink:
    """Something that takes a run's records; this one takes nothing."""

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        pass

    def step(self, step: Step) -> None:
        pass

    def finish(self, summary: RunSummary | None) -> None:
        """End a run; without a summary where only some of its steps were shown."""

    def close(self) -> None:
        pass


class _Text(Sink):
    """The generated text and nothing else, one final newline a run.

    escaped: on a terminal, where nothing in it may steer the screen.
    """

    def __init__(self, escaped: bool) -> None:
        self._escaped = escaped

    def step(self, step: Step) -> None:
        if step.text:
            streams.write_stdout(safe_text(step.text) if self._escaped else step.text)

    def finish(self, summary: RunSummary | None) -> None:
        streams.write_stdout("\n")


class _Records(Sink):
    """The trace's lines, to stdout or to a file."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        self._write(to_json_line(header.as_dict()))

    def step(self, step: Step) -> None:
        self._write(step_json_line(step))

    def finish(self, summary: RunSummary | None) -> None:
        if summary is not None:
            self._write(to_json_line(summary.as_dict()))


class _Screen(Sink):
    """A `TerminalView` on stdout, or on stderr beside the text: there a failure to write ends the
    view, not the run. On a terminal it is drawn beside the run, elsewhere step by step."""

    def __init__(
        self,
        stream: Any,
        tables: str,
        byte_level: bool | None,
        below: Callable[[Step, Style], list[str]] | None,
        *,
        text: bool,
    ) -> None:
        from decodecli.render.terminal.background_renderer import BackgroundRenderer
        from decodecli.render.terminal.view import TerminalView

        self._tolerant = stream is sys.stderr
        view = TerminalView(
            console(streams.unbuffered(stream)),
            tables=tables,
            live=text,
            show_text=text,
            byte_level=byte_level,
            below=below,
        )
        self._view: BackgroundRenderer | TerminalView | None = view
        if streams.is_terminal(stream):
            self._view = BackgroundRenderer(view)

    def _draw(self, method: str, *args: Any) -> None:
        if self._view is None:
            return
        try:
            getattr(self._view, method)(*args)
        except (OSError, ValueError):
            if not self._tolerant:
                raise
            self._view = None

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        self._draw("start", header, sample)

    def step(self, step: Step) -> None:
        self._draw("step", step)

    def finish(self, summary: RunSummary | None) -> None:
        self._draw("finish", summary)

    def close(self) -> None:
        self._draw("close")


class _HeaderLine(Sink):
    """What a run was, said on stderr where only the text goes to stdout."""

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        from decodecli.render.terminal.summary import header_lines

        for line in header_lines(header, style_of(sys.stderr), sample):
            streams.tell(line)


class _TextPicture(Sink):
    """The text in its colours, a file a sample: text.png, or text-1.png and so on."""

    def __init__(self, path: str, quiet: bool) -> None:
        self._path, self._quiet = path, quiet

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        self._header, self._tokens = header, list[tuple[str, float | None, int | None]]()
        self._file = sample_path(self._path, *sample)

    def step(self, step: Step) -> None:
        self._tokens.append((step.text, step.logprob, step.rank))

    def finish(self, summary: RunSummary | None) -> None:
        from decodecli.render.plots.text import draw_page, run_text_page

        draw_page(run_text_page(self._header, self._tokens), self._file)
        streams.Notices(self._quiet).tell(f"the text is drawn in {self._file}")


class Page(Sink):
    """A page that answers, a file a sample. curves: of each step by its index, as an observer of the run
    fills it."""

    def __init__(self, path: str, quiet: bool, curves: Mapping[int, StepCurve]) -> None:
        self._path, self._quiet, self._curves = path, quiet, curves

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        self._header, self._steps = header, list[Step]()
        self._file = sample_path(self._path, *sample)

    def step(self, step: Step) -> None:
        self._steps.append(step)

    def finish(self, summary: RunSummary | None) -> None:
        from decodecli.render.html.run_page import write_page

        assert summary is not None, "a page is of a whole run"
        write_page(Run(self._header, tuple(self._steps), summary, curves=self._curves), self._file)
        streams.Notices(self._quiet).tell(f"the page is in {self._file}")


class _Csv(Sink):
    """A row a step: the numbers of the chosen token, as `Run.to_pandas` has them, after `run` (from 0, as
    everything in a trace) and `seed`."""

    def __init__(self) -> None:
        self._run = -1
        self._seed = 0

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        self._run, self._seed = self._run + 1, header.seed
        if not self._run:
            write_csv([["run", "seed", *STEP_COLUMNS]])

    def step(self, step: Step) -> None:
        write_csv([[self._run, self._seed, *(getattr(step, name) for name in STEP_COLUMNS)]])


_SCREENS = (_Screen, _HeaderLine)


class Sinks:
    """Everything that a run's records go to, decided once from the options and the streams.

    Args:
        record: the file that `--trace` names.
        byte_level: how tokens are spelt, as for `TerminalView`.
        plot: the file for a picture of the text.
        below: as for `TerminalView`.
        page: a further sink.
    """

    def __init__(
        self,
        output: OutputParams,
        record: TraceFile | None,
        byte_level: bool | None,
        plot: str | None = None,
        below: Callable[[Step, Style], list[str]] | None = None,
        page: Sink | None = None,
    ) -> None:
        self._first: RunSummary | None = None  # of the samples
        self.folded = False  # whether this run is greedy like those before, and not shown again
        self._all: list[Sink] = []
        if record is not None:
            self._all.append(_Records(record.write))
        at_terminal = streams.is_terminal(sys.stdout)
        wants_tables, quiet = output.tables in ("full", "line"), output.quiet
        if output.format == "jsonl":
            self._all.append(_Records(lambda line: streams.write_stdout(f"{line}\n")))
        elif output.format == "csv":
            self._all.append(_Csv())
        elif (at_terminal and not output.quiet) or (
            wants_tables and (at_terminal or streams.in_one_place())
        ):
            tables = output.tables or "full"
            self._all.append(_Screen(sys.stdout, tables, byte_level, below, text=True))
            wants_tables, quiet = False, True
        else:
            self._all.append(_Text(escaped=at_terminal))
        if wants_tables:
            self._all.append(_Screen(sys.stderr, str(output.tables), byte_level, below, text=False))
        elif not quiet:
            self._all.append(_HeaderLine())
        # Last, so that what they say stands below the text.
        if plot is not None:
            self._all.append(_TextPicture(plot, output.quiet))
        if page is not None:
            self._all.append(page)

    @property
    def show_only(self) -> bool:
        """Whether all that is wanted of a run is to be seen on a screen."""
        return all(isinstance(sink, _SCREENS) for sink in self._all)

    @property
    def shows_steps(self) -> bool:
        """Whether more of a step than its text goes anywhere."""
        return any(isinstance(sink, _Records | _Screen) for sink in self._all)

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        """Begin a run. Of greedy samples, screens show the first."""
        self.folded = header.greedy and sample[0] > 1
        for sink in self._taking:
            sink.start(header, sample)

    @property
    def _taking(self) -> list[Sink]:
        return [s for s in self._all if not (self.folded and isinstance(s, _SCREENS))]

    def step(self, step: Step) -> None:
        for sink in self._taking:
            sink.step(step)

    def finish(self, summary: RunSummary, *, recorded: bool = True, complete: bool = True) -> None:
        """End a run. A summary that is not `recorded` goes to no trace, one of a run that was not shown
        `complete` to no screen."""
        problem: BaseException | None = None
        if not self.folded:
            self._first = summary
        elif self._first is not None and recorded and summary.token_ids != self._first.token_ids:
            streams.tell("Note: greedy samples differ, though they should not; see the trace")
        for sink in self._taking:
            if not recorded and isinstance(sink, _Records):
                continue
            try:
                sink.finish(summary if complete or isinstance(sink, _Records) else None)
            except (OSError, DecodecliError) as error:  # the other sinks still get their ending
                problem = problem or error
        if problem is not None:
            raise problem

    def close(self) -> None:
        for sink in self._all:
            sink.close()
