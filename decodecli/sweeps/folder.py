"""The files of a sweep's folder: each is there as a whole or not at all, whatever ends the process.

`--extend` gives the same cells the numbers that they have in a larger grid. The new `sweep.toml`,
`runs.jsonl` and traces are made in a hidden folder. It gets the name `.extended` when they are whole, and
from then on the sweep is that of the larger grid. What still has to be moved is found there by readers,
and moved by whoever opens the folder next.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from decodecli.errors import WriteError

MANIFEST, RUNS, TRACES = "sweep.toml", "runs.jsonl", "traces"
_UNFINISHED, _EXTENDED, _FORMER = ".extending", ".extended", "former traces"
_PART = ".part"  # the end of a hidden file's name that is not yet whole


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file: it is there as a whole, or as it was before.

    Raises:
        WriteError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        part.parent.mkdir(exist_ok=True)
        with part.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise not_written(path, error) from error


def remove_parts(*folders: Path) -> None:
    """Remove what a process that was killed had not finished writing."""
    for folder in folders:
        for part in folder.glob(f".*{_PART}"):
            with contextlib.suppress(OSError):
                part.unlink()


def sync_folder(folder: Path) -> None:
    """Make sure that the folder's new names are on the disk too, where that can be asked for."""
    with contextlib.suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def not_written(path: Path, error: OSError) -> WriteError:
    """The error for a file that could not be written."""
    return WriteError(
        f"cannot write {path}: {error.strerror}",
        "make room and run the same command again: finished cells are kept",
    )


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
            (unfinished / TRACES).mkdir()
            for old_name, new_name in traces().items():
                old, new = folder / TRACES / old_name, unfinished / TRACES / new_name
                if not old.exists():
                    continue
                try:
                    os.link(old, new)
                except OSError:  # the file system has no links
                    write_whole(new, old.read_bytes())
            sync_folder(unfinished / TRACES)
        write_whole(unfinished / MANIFEST, toml)
        sync_folder(unfinished)
        os.replace(unfinished, folder / _EXTENDED)
    except OSError as error:
        raise not_written(folder / RUNS, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    sync_folder(folder)
    finish(folder)


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
