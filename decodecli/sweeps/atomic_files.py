"""Files of a sweep's folder that are there as a whole or not at all, whatever ends the process."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from decodecli.errors import WriteError

PART = ".part"  # the end of a hidden file's name that is not yet whole


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file: it is there as a whole, or as it was before.

    Raises:
        WriteError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
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
        for part in folder.glob(f".*{PART}"):
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
