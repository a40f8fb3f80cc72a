"""Where a run's records go: the text, the trace's lines, a screen; decided once from the options and the
streams."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from decodecli.cli import streams
from decodecli.cli.color import console
from decodecli.config import OutputParams
from decodecli.errors import DecodecliError
from decodecli.records import RunHeader, RunSummary, Step, step_json_line, to_json_line
from decodecli.views.jsonl import TraceFile

if TYPE_CHECKING:
    from decodecli.views.drawing import Drawing
    from decodecli.views.terminal import TerminalView


class Sink(Protocol):
    def start(self, header: RunHeader, sample: tuple[int, int]) -> None: ...
    def step(self, step: Step) -> None: ...
    def finish(self, summary: RunSummary) -> None: ...
    def close(self) -> None: ...


class _Text:
    """The generated text and nothing else, one final newline a run."""

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        pass

    def step(self, step: Step) -> None:
        if step.text:
            streams.write_stdout(step.text)

    def finish(self, summary: RunSummary) -> None:
        streams.write_stdout("\n")

    def close(self) -> None:
        pass


class _Records:
    """The trace's lines, to stdout or to a file."""

    def __init__(
        self, write: Callable[[str], None], close: Callable[[], None] = lambda: None
    ) -> None:
        self._write, self.close = write, close

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        self._write(to_json_line(header.as_dict()))

    def step(self, step: Step) -> None:
        self._write(step_json_line(step))

    def finish(self, summary: RunSummary) -> None:
        self._write(to_json_line(summary.as_dict()))


class _Screen:
    """A `TerminalView` on stdout, or on stderr beside the text: there a failure to write ends the
    view, not the run. On a terminal it is drawn beside the run, elsewhere step by step."""

    def __init__(self, stream: Any, tables: str, byte_level: bool, *, text: bool) -> None:
        from decodecli.views.drawing import Drawing
        from decodecli.views.terminal import TerminalView

        self._tolerant = stream is sys.stderr
        view = TerminalView(
            console(streams.unbuffered(stream)),
            tables=tables,
            live=text,
            show_text=text,
            byte_level=byte_level,
        )
        self._view: Drawing | TerminalView | None = view
        if streams.is_terminal(stream):
            self._view = Drawing(view)

    def _draw(self, what: str, *args: Any, **kwargs: Any) -> None:
        if self._view is None:
            return
        try:
            getattr(self._view, what)(*args, **kwargs)
        except (OSError, ValueError):
            if not self._tolerant:
                raise
            self._view = None

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        self._draw("start", header, sample=sample if sample[1] > 1 else None)

    def step(self, step: Step) -> None:
        self._draw("step", step)

    def finish(self, summary: RunSummary) -> None:
        self._draw("finish", summary)

    def close(self) -> None:
        self._draw("close")


class _HeaderLine(_Text):
    """What a run was, said on stderr where only the text goes to stdout."""

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        from decodecli.cli.reporting import style_of
        from decodecli.views.summary import header_lines

        style = style_of(sys.stderr)
        for line in header_lines(header, style, sample if sample[1] > 1 else None):
            streams.tell(line)

    def step(self, step: Step) -> None:
        pass

    def finish(self, summary: RunSummary) -> None:
        pass


class _TextPicture:
    """The text in its colours, a file a sample: text.png, or text-1.png and so on."""

    def __init__(self, path: str) -> None:
        self._path = path

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        self._header, self._tokens = header, list[tuple[str, float | None, int | None]]()
        path = Path(self._path)
        several = sample[1] > 1
        self._file = str(path.with_stem(f"{path.stem}-{sample[0]}")) if several else self._path

    def step(self, step: Step) -> None:
        self._tokens.append((step.text, step.logprob, step.rank))

    def finish(self, summary: RunSummary) -> None:
        from decodecli.views.text_picture import draw_page, run_text_page

        draw_page(run_text_page(self._header, self._tokens), self._file)

    def close(self) -> None:
        pass


class Sinks:
    """Everything that a run's records go to, decided once from the options and the streams."""

    def __init__(
        self,
        output: OutputParams,
        record: TraceFile | None,
        byte_level: bool,
        plot: str | None = None,
    ) -> None:
        self._all: list[Sink] = []
        if record is not None:
            self._all.append(_Records(record.write, record.close))
        if plot is not None:
            self._all.append(_TextPicture(plot))
        at_terminal = streams.is_terminal(sys.stdout)
        asked = output.tables in ("full", "line")
        if output.format != "text":
            self._all.append(_Records(lambda line: streams.write_stdout(f"{line}\n")))
        elif (at_terminal and not output.quiet) or (
            asked and (at_terminal or streams.in_one_place())
        ):
            self._all.append(_Screen(sys.stdout, output.tables or "full", byte_level, text=True))
            return
        else:
            self._all.append(_Safe() if at_terminal else _Text())
        if asked:
            self._all.append(_Screen(sys.stderr, str(output.tables), byte_level, text=False))
        elif not output.quiet:
            self._all.append(_HeaderLine())

    def start(self, header: RunHeader, sample: tuple[int, int]) -> None:
        for sink in self._all:
            sink.start(header, sample)

    def step(self, step: Step) -> None:
        for sink in self._all:
            sink.step(step)

    def finish(self, summary: RunSummary) -> None:
        problem: BaseException | None = None
        for sink in self._all:
            try:
                sink.finish(summary)
            except (OSError, DecodecliError) as error:  # the other sinks still get their ending
                problem = problem or error
        if problem is not None:
            raise problem

    def close(self) -> None:
        for sink in self._all:
            sink.close()


class _Safe(_Text):
    """The bare text on a terminal: nothing in it can steer the screen."""

    def step(self, step: Step) -> None:
        from decodecli.views.visible import safe_text

        streams.write_stdout(safe_text(step.text))
