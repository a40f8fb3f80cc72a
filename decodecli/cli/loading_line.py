"""A moving line on stderr while a model loads, if a person is looking."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from decodecli.cli import streams
from decodecli.cli.color import console
from decodecli.settings import LoadParams

if TYPE_CHECKING:
    from rich.text import Text

    from decodecli.models.loading import LanguageModel
    from decodecli.settings import OutputParams


def load_model(
    params: LoadParams, output: OutputParams, progress: Callable[[str], None] | None = None
) -> LanguageModel:
    """Load a model under a `loading_line`, or under the one that `progress` belongs to.

    Raises:
        LoadError: as `models.loading.load`.
    """
    if progress is None:
        with loading_line(params.model, output, libraries=True) as progress:
            return load_model(params, output, progress)
    gc.disable()  # importing leaves next to no garbage, and the search for it takes a sixth of the time
    try:
        from decodecli.models.loading import load
    finally:
        gc.freeze()
        gc.enable()
    lm = load(params, progress=progress, verbose=output.verbose, auto_threads=True)
    if output.verbose:
        streams.Notices(output.quiet).tell(f"the loader is {lm.loader}")
    return lm


@contextmanager
def loading_line(
    name: str, output: OutputParams, *, libraries: bool = False
) -> Iterator[Callable[[str], None]]:
    """Show the line during the block, which gets a function that changes its words.

    Args:
        libraries: whether PyTorch, and Transformers where it is needed, are loaded before it, which takes
            longer than a small model: the line says so.
    """
    if output.quiet or not streams.is_terminal(sys.stderr):
        yield lambda words: None
        return
    screen = console(sys.stderr)  # this stream, though loading looks away from it meanwhile
    spinner = "dots" if screen.encoding.lower().startswith("utf") else "line"
    line = LoadingLine(f"loading {name}", libraries)
    with screen.status(line, spinner=spinner):
        yield line.say


class LoadingLine:
    """What is being loaded at the moment of drawing."""

    def __init__(self, words: str, libraries: bool) -> None:
        self._words, self._libraries = words, libraries

    def say(self, words: str) -> None:
        self._words = words

    def __rich__(self) -> Text:
        from rich.text import Text

        words = self._words
        library = _pending_library() if self._libraries and words.startswith("loading ") else ""
        return Text(streams.printable(f"loading {library}" if library else words))


def _pending_library() -> str:
    """The library that is being imported, by what its modules define last; empty when all are there."""
    if not hasattr(sys.modules.get("decodecli.models.loading"), "load"):
        return "PyTorch"
    loaded = hasattr(sys.modules.get("transformers.modeling_utils"), "PreTrainedModel")
    return "Transformers" if "transformers" in sys.modules and not loaded else ""
