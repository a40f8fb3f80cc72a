"""A sweep's folder that grows: the same cells under the numbers that they have in a larger grid.

`sweep.toml`, `runs.jsonl` and the traces change together, though the process may end between any two
writes. The new ones are made beside them, under hidden names; the last of these, `asked.PENDING`, is the
moment from which on the folder is that of the larger grid. What is left to do then is renaming, which
whoever opens the folder next goes on with; who only reads it takes the hidden files.

    .extended.jsonl    the new runs.jsonl
    .extended.traces/  the new traces/
    .extended.toml     the new sweep.toml: all three are whole
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from decodecli.errors import WriteError
from decodecli.sweeps import manifest as a
from decodecli.sweeps.atomic_files import not_written, sync_folder, write_whole

RUNS, TRACES = "runs.jsonl", "traces"
_NEXT_RUNS, _NEXT_TRACES, _OLD_TRACES = ".extended.jsonl", ".extended.traces", ".former.traces"


def runs_path(folder: Path) -> Path:
    """Where the cells are that belong to what `asked.manifest_path` says."""
    pending = folder / _NEXT_RUNS
    return pending if (folder / a.PENDING).exists() and pending.exists() else folder / RUNS


def grow(
    folder: Path, toml: bytes, lines: Iterable[bytes], traces: Callable[[], Mapping[str, str]]
) -> None:
    """Give the folder another `sweep.toml` and `runs.jsonl`, and its traces other names, all at once.

    Args:
        toml, lines: the new files.
        traces: asked for after the last line: names of traces that stay, and what they are called then.

    Raises:
        WriteError: there was no room: the folder is as it was.
    """
    try:
        write_whole(folder / _NEXT_RUNS, lines)
        _link_traces(folder, traces())
        sync_folder(folder)
        write_whole(folder / a.PENDING, toml)
    except WriteError:
        _drop(folder)
        raise
    sync_folder(folder)
    finish(folder)


def _link_traces(folder: Path, names: Mapping[str, str]) -> None:
    """The traces under their new names, as they are under the old ones."""
    if not (folder / TRACES).is_dir():
        return
    kept = {old: new for old, new in names.items() if (folder / TRACES / old).exists()}
    try:
        (folder / _NEXT_TRACES).mkdir()
        for old, new in kept.items():
            _same_file(folder / TRACES / old, folder / _NEXT_TRACES / new)
    except OSError as error:
        raise not_written(folder / TRACES, error) from error
    sync_folder(folder / _NEXT_TRACES)


def finish(folder: Path) -> None:
    """Come to the end of a change that was interrupted: back where it had not been made, else through.

    Raises:
        OSError: a file could not be renamed.
    """
    if not (folder / a.PENDING).exists():
        _drop(folder)
        return
    if (folder / _NEXT_TRACES).exists():
        if (folder / TRACES).exists():
            _remove(folder / _OLD_TRACES)
            os.replace(folder / TRACES, folder / _OLD_TRACES)
        os.replace(folder / _NEXT_TRACES, folder / TRACES)
    if (folder / _NEXT_RUNS).exists():
        os.replace(folder / _NEXT_RUNS, folder / RUNS)
    sync_folder(folder)  # before the name that says what is still to be done goes
    os.replace(folder / a.PENDING, folder / a.NAME)
    sync_folder(folder)
    _remove(folder / _OLD_TRACES)


def _drop(folder: Path) -> None:
    """Remove what was made for a change that did not come about, and the traces that one left."""
    with contextlib.suppress(FileNotFoundError):
        (folder / _NEXT_RUNS).unlink()
    _remove(folder / _NEXT_TRACES)
    _remove(folder / _OLD_TRACES)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _same_file(old: Path, new: Path) -> None:
    """The same trace under another name too; a copy where the file system has no links."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
        with new.open("rb") as file:
            os.fsync(file.fileno())
