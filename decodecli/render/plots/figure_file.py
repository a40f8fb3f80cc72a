"""Pictures as files: the formats, the style sheet they share, and what to say without matplotlib."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError, WriteError
from decodecli.library_logging import quiet_libraries

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
_NO_DATES: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": "decodecli"},
    ".pdf": {"CreationDate": None, "Creator": "decodecli", "Producer": None},
}


def check_suffix(path: str, hint: str = "or give - to draw in the terminal") -> str:
    """The format that a file name asks for; raises `UsageError` for an unknown one."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"--plot {path}: the file name must end in .png, .svg or .pdf", hint)
    return suffix


def check_matplotlib(
    needed_by: str = "--plot FILE needs", otherwise: str = "--plot - to draw in the terminal"
) -> None:
    """Raises `UsageError` where matplotlib is missing, without loading it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            f"{needed_by} matplotlib, which is not installed",
            f"pip install 'decodecli[plots]', or {otherwise}",
        )


def save_figure(path: Path | str, make: Callable[[], Figure]) -> None:
    """Write the figure that `make` returns, the same bytes for the same figure.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing.
        WriteError: the file cannot be written.
    """
    suffix, data = check_suffix(str(path)), io.BytesIO()
    with style():
        make().savefig(data, format=suffix[1:], metadata=_NO_DATES[suffix])
    write_file(path, data.getvalue())


def write_file(path: Path | str, data: bytes) -> None:
    """Write a picture or page; raises `WriteError` where that is not possible."""
    try:
        Path(os.path.expanduser(path)).write_bytes(data)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error


@contextmanager
def style() -> Iterator[None]:
    """matplotlib with our own settings and nobody else's, given back afterwards.

    It is imported without a word from it. An `MPLBACKEND` that it does not know would fail that import
    half-way and is left aside: files are drawn without any. Raises `UsageError` where it is missing.
    """
    check_matplotlib()
    is_first = "matplotlib" not in sys.modules
    backend = os.environ.pop("MPLBACKEND", None) if is_first else None
    try:
        with quiet_libraries(allowed=not is_first):
            matplotlib = importlib.import_module("matplotlib")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    with matplotlib.rc_context():
        matplotlib.rc_file(Path(__file__).with_name("decodecli.mplstyle"))
        matplotlib.rcParams["svg.hashsalt"] = "decodecli"  # which no style sheet may set
        yield
