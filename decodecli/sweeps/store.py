"""The folder of a sweep: a line a cell in `runs.jsonl`, safe on the disk before anybody hears of it.

A sweep may end at any moment. Lines are only ever appended, whole lines in one write, and synced; what
a crash leaves of the last one is cut off at the next opening. A cell that failed is not finished: its
line goes at the next opening, and the cell runs again.

    DIR/sweep.toml    the `Manifest`: the grid, the model, the versions of the programs
    DIR/runs.jsonl    a `CellRecord` a line, in the order in which they ended
    DIR/traces/       000123.jsonl for cell 123, where steps are kept
    DIR/.lock         held by the process that writes here
    DIR/.extended/    while an extension is being moved into place: see `folder`

Everything else there (tables, plots, a page) is made from these again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import DecodecliError, UsageError
from decodecli.records.json_lines import to_json_line
from decodecli.records.sweep import CellRecord
from decodecli.sweeps.axes import shortened
from decodecli.sweeps.cell_lines import read_records, scan
from decodecli.sweeps.folder import (
    MANIFEST,
    RUNS,
    TRACES,
    extend_folder,
    finish,
    not_written,
    remove_parts,
    sync_folder,
    write_whole,
)
from decodecli.sweeps.manifest import (
    Manifest,
    StoredManifest,
    check_same_grid,
    check_same_model,
    differences,
    manifest_grid,
    read_manifest,
)

if TYPE_CHECKING:
    from filelock import FileLock

LOCK = ".lock"
_EVERY = 0.05  # seconds from one sync to the next, at least
_SHARE = 20  # and this many times what the last one took, so that syncing never costs more than 5 %
_BINARY = getattr(os, "O_BINARY", 0)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Store:
    """A sweep's folder, open for writing by this process alone.

    folder, manifest: where it is, and what it holds. notices: what the user should know.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, lock: FileLock, notices: Sequence[str]
    ) -> None:
        self.folder, self.manifest, self._lock = folder, manifest, lock
        self.notices = tuple(notices)
        self._finished = bytearray(len(manifest.grid))  # a byte a cell: 100 kB for 100,000
        self._waiting: list[tuple[CellRecord, bytes]] = []  # cells with their lines
        self._synced = -1e9
        self._interval = _EVERY
        self._file = -1
        self._size = 0

    @property
    def done(self) -> int:
        """How many cells are finished, or have failed in this run."""
        return sum(self._finished)

    @property
    def todo(self) -> list[int]:
        """The cells that are not finished, in grid order."""
        return [index for index, finished in enumerate(self._finished) if not finished]

    def add(self, record: CellRecord, trace: Sequence[str] | None = None) -> None:
        """Take a cell. It is safe once a `sync` has returned it.

        Args:
            trace: the lines of its trace, to be kept in a file of its own.

        Raises:
            WriteError: the trace could not be written.
        """
        if self._finished[record.index]:  # as when a lost worker's cell comes back after all
            return
        if trace is not None:
            write_whole(trace_path(self.folder, record.index), _lines(trace))
        self._finished[record.index] = 1
        self._waiting.append((record, _lines([to_json_line(record.as_dict())])))

    def due(self) -> bool:
        """Whether something waits, and the last sync is long enough ago for another."""
        return bool(self._waiting) and time.monotonic() - self._synced >= self._interval

    def sync(self) -> list[CellRecord]:
        """Write what waits and wait until it is on the disk; returns those cells.

        Raises:
            WriteError: that failed. No part of a line stays, and nothing more is written.
        """
        if not self._waiting:
            return []
        records, lines = zip(*self._waiting, strict=True)
        self._waiting.clear()
        if self._file < 0:
            raise not_written(self.folder / RUNS, OSError(errno.EBADF, "it is closed"))
        start = time.monotonic()
        try:
            left = memoryview(b"".join(lines))
            while left:  # one write where the system takes it whole
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            for record in records:  # no line that nobody was told of, and no more writing
                self._finished[record.index] = 0
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
                os.fsync(self._file)
            self._close_file()
            raise not_written(self.folder / RUNS, error) from error
        self._size += sum(map(len, lines))
        self._synced = time.monotonic()
        self._interval = max(_EVERY, _SHARE * (self._synced - start))
        return list(records)

    def check_model(self, facts: dict[str, Any]) -> None:
        """Compare the model that was loaded with the one of the finished cells; note it if it is the
        first.

        Raises:
            UsageError: it is another one.
            WriteError: it could not be noted.
        """
        check_same_model(self.manifest.model, facts, self.folder)
        known = {**facts, **{k: v for k, v in self.manifest.model.items() if v is not None}}
        if known != dict(self.manifest.model):
            self.manifest = replace(self.manifest, model=known)
            self._write_manifest()

    def note_rate(self, rate: float) -> None:
        """Keep the tokens a second of this run, for the estimates of `--dry-run`."""
        self.manifest = replace(self.manifest, rate=round(rate, 1))
        self._write_manifest()

    def _write_manifest(self) -> None:
        write_whole(self.folder / MANIFEST, self.manifest.as_toml().encode("utf-8"))

    def records(self) -> Iterator[CellRecord]:
        """The finished cells and those that failed, read from the disk one by one."""
        return read_records(self.folder)

    def close(self) -> None:
        """Let go of the folder. What was not synced is not kept."""
        self._close_file()
        self._lock.release()

    def _close_file(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            with contextlib.suppress(OSError):
                os.close(file)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _open_runs(self) -> None:
        """Read what is there, cut off what is torn, drop what failed, and open for appending."""
        path = self.folder / RUNS
        failed, end, torn = 0, 0, False
        for line in scan(path, self.manifest.grid):
            if line.record is None:
                torn = True
            elif line.record.error is not None:
                failed += 1
            else:
                self._finished[line.record.index] = 1
            end = end if torn else line.end
        if failed:
            write_whole(path, (line.data for line in scan(path) if line.is_finished))
            cells = "cell that failed runs" if failed == 1 else "cells that failed run"
            self.notices += (f"{failed:,} {cells} again",)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)
        if torn:
            self.notices += (f"the end of {RUNS} was torn and is cut off; its cell runs again",)
            if not failed:
                os.ftruncate(self._file, end)
                os.fsync(self._file)
        self._size = os.fstat(self._file).st_size


def open_store(folder: Path, manifest: Manifest, extend: bool = False) -> Store:
    """Open a new folder for a sweep, or that of the same sweep to go on with it.

    Args:
        extend: go on with a sweep of fewer cells too, if this one has them all.

    Raises:
        UsageError: the folder cannot be used: it holds something else or another sweep's cells, lies in
            another sweep's folder, is being written by another process, or cannot be written.
        WriteError: there is no room.
        DecodecliError: `runs.jsonl` is damaged.
    """
    check_folder(folder, manifest, extend)
    with contextlib.ExitStack() as undo:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            is_new = False
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                is_new = True
            lock, notices = _lock(folder)
            undo.callback(lock.release)
            if is_new:  # only now is it certain that nobody else has begun there
                undo.callback(_unmake, folder)
            finish(folder)
            stored = check_folder(folder, manifest, extend)  # again, now that nobody else writes
            if stored is not None:
                notices += differences(stored, manifest)
                manifest = manifest.resuming(stored)
                if stored.fingerprint != manifest.grid.fingerprint:
                    notices.append(_extend(folder, manifest))
            store = Store(folder, manifest, lock, notices)
            undo.callback(store._close_file)
            remove_parts(folder, folder / TRACES)
            if stored is None:
                store._write_manifest()
            store._open_runs()
            sync_folder(folder)
        except OSError as error:
            raise _unusable(folder, error) from error
        undo.pop_all()
    return store


def _extend(folder: Path, manifest: Manifest) -> str:
    """Make a folder that of a larger grid, its cells in their places there; returns what to say of it.

    Raises:
        WriteError: there is no room; nothing has changed.
    """
    old = manifest_grid(folder)
    indices: dict[int, int] = {}  # of the finished cells, before and after

    def lines() -> Iterator[bytes]:
        for line in scan(folder / RUNS, old):
            if not line.is_finished or line.record is None or line.record.index in indices:
                continue
            index = manifest.grid.index_of(old[line.record.index])
            assert index is not None, "the larger grid has every cell"
            indices[line.record.index] = index
            yield _lines([to_json_line(replace(line.record, index=index).as_dict())])

    def traces() -> dict[str, str]:
        return {
            trace_path(folder, old).name: trace_path(folder, new).name
            for old, new in indices.items()
        }

    extend_folder(folder, manifest.as_toml().encode("utf-8"), lines(), traces)
    return f"the sweep of {len(old):,} cells has {len(manifest.grid):,} from now on"


def check_folder(folder: Path, manifest: Manifest, extend: bool = False) -> StoredManifest | None:
    """The manifest of a folder that holds this very sweep, or with `extend` one of fewer cells that it
    has all; None for a new or empty folder. Nothing is changed.

    Raises:
        UsageError: it holds something else, or lies in another sweep's folder.
        DecodecliError: it cannot be read.
    """
    if not os.path.isdir(folder) and os.path.lexists(folder):
        raise UsageError(f"--out {folder} is no folder", "give a folder that is new or empty")
    for parent in folder.resolve().parents:
        if os.path.isfile(parent / MANIFEST) and os.path.isfile(parent / RUNS):
            raise UsageError(
                f"--out {folder} lies in the folder of another sweep, {parent}",
                "give a folder of its own",
            )
    stored = read_manifest(folder)
    if stored is None:  # what a sweep that was killed at once leaves is no obstacle
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
            other = [x.name for x in entries if x.name != RUNS or x.stat().st_size > 0]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(folder, error) from error
        if other:
            raise UsageError(
                f"--out {folder} holds other files ({min(other)}) and no {MANIFEST}",
                "give a folder that is new, empty, or a sweep's",
            )
        return None
    check_same_grid(stored, manifest, folder, extend)
    check_same_model(stored.model, manifest.model, folder)
    return stored


def check_writable(folder: Path) -> None:
    """Refuse a folder that could not be made or written, as far as permissions tell.

    Raises:
        UsageError: it cannot.
    """
    existing = Path(os.path.abspath(folder))
    while not os.path.exists(existing):
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _unusable(folder, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def trace_path(folder: Path, index: int) -> Path:
    """Where the trace of a cell lies."""
    return folder / TRACES / f"{index:06}.jsonl"


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _unmake(folder: Path) -> None:
    """Take back a folder that was made for a sweep that did not begin."""
    with contextlib.suppress(OSError):
        for name in (LOCK, RUNS, MANIFEST):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _lock(folder: Path) -> tuple[FileLock, list[str]]:
    """Hold `.lock` until it is released or the process ends, however it ends; with what is to be said
    where the file system has no locks.

    Raises:
        UsageError: another process holds it.
        OSError: it cannot be made.
    """
    from filelock import FileLock, Timeout

    path, notices = folder / LOCK, []
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        holder = path.read_bytes()[:100].decode("ascii", "replace").strip() if path.exists() else ""
        raise UsageError(
            f"another sweep is writing into {folder}" + (f" ({holder})" if holder else ""),
            "wait for it, or give another --out",
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        notices.append(f"{folder} cannot be locked: let one process alone write into it")
    with contextlib.suppress(OSError):
        path.write_text(f"process {os.getpid()}\n")
    return lock, notices


def _unusable(folder: Path, error: OSError) -> DecodecliError:
    if error.errno in _NO_ROOM:
        return not_written(folder, error)
    return UsageError(
        f"--out {shortened(folder)} cannot be used: {error.strerror}",
        "give a folder that can be written",
    )
