"""`--extend`: the same cells under the numbers that they have in a larger grid.

The new `sweep.toml`, `runs.jsonl` and traces are made in a hidden folder. It gets the name `.extended`
when they are whole, and from then on the sweep is that of the larger grid, whatever ends the process.
What still has to be moved is found there by readers, and moved by whoever opens the folder next.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from decodecli.sweeps.atomic_files import not_written, sync_folder, write_whole

MANIFEST, RUNS, TRACES = "sweep.toml", "runs.jsonl", "traces"
_UNFINISHED, _EXTENDED, _FORMER = ".extending", ".extended", "former traces"


def current(folder: Path, name: str) -> Path:
    """Where `MANIFEST` or `RUNS` is to be read, while an extension is being moved into place too."""
    extended = folder / _EXTENDED / name
    return extended if os.path.exists(extended) else folder / name


def extend_folder(
    folder: Path, toml: bytes, lines: Iterable[bytes], traces: Callable[[], Mapping[str, str]]
) -> None:
    """Give the folder another `sweep.toml` and `runs.jsonl`, and its traces other names, all at once.

    Args:
        toml, lines: the new files.
        traces: called after the last line: the present names of the traces that stay, and the new ones.

    Raises:
        WriteError: there was no room: the folder is as it was.
    """
    unfinished = folder / _UNFINISHED
    try:
        write_whole(unfinished / RUNS, lines)
        if (folder / TRACES).is_dir():
            _link(folder / TRACES, unfinished / TRACES, traces())
        write_whole(unfinished / MANIFEST, toml)
        sync_folder(unfinished)
        os.replace(unfinished, folder / _EXTENDED)
    except OSError as error:
        raise not_written(folder / RUNS, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    sync_folder(folder)
    finish(folder)


def _link(old: Path, new: Path, names: Mapping[str, str]) -> None:
    """Give files a second name in another folder; they are copied where the file system has no links."""
    new.mkdir()
    for old_name, new_name in names.items():
        if not (old / old_name).exists():
            continue
        try:
            os.link(old / old_name, new / new_name)
        except OSError:
            write_whole(new / new_name, (old / old_name).read_bytes())
    sync_folder(new)


def finish(folder: Path) -> None:
    """Move an extension into place if the process that made it was interrupted; drop an unfinished one.

    Raises:
        OSError: a file could not be renamed.
    """
    shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    extended = folder / _EXTENDED
    if not extended.exists():
        return
    if (extended / TRACES).exists():
        if (folder / TRACES).exists():
            os.replace(folder / TRACES, extended / _FORMER)
        os.replace(extended / TRACES, folder / TRACES)
    for name in (RUNS, MANIFEST):
        if (extended / name).exists():
            os.replace(extended / name, folder / name)
    sync_folder(folder)
    shutil.rmtree(extended, ignore_errors=True)
