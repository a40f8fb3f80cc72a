"""The trace as strict JSON lines, each flushed as it is written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO

from decodecli.errors import UsageError, WriteError


class TraceFile:
    """A trace on disk. A write that fails stops the trace, not the run.

    What the file held before is gone with the first record, not sooner.

    `problem` is None until then, and a `WriteError` after.

    Raises:
        UsageError: the folder is not there, or the path is one.
        WriteError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        if path == "-":
            raise UsageError("--trace - names no file", "--format jsonl writes to standard output")
        self.path = Path(os.path.expanduser(path))
        self.problem: WriteError | None = None
        self._empty = False
        try:
            self._file: IO[str] | None = self.path.open("a", encoding="utf-8", newline="\n")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise UsageError(
                f"--trace {path}: {self.path.parent} is no folder to write in"
                if not self.path.is_dir()
                else f"--trace {path} is a folder",
                "give a file name in a folder that exists",
            ) from None
        except OSError as error:
            raise WriteError(
                f"cannot write {path}: {error.strerror}", "choose another file"
            ) from error

    def write(self, line: str) -> None:
        """Append one record's line; after a failure, do nothing."""
        if self._file is None:
            return
        try:
            if not self._empty:
                with contextlib.suppress(OSError):  # a device or pipe has nothing to cut
                    self._file.truncate(0)
                self._empty = True
            self._file.write(f"{line}\n")
            self._file.flush()
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Close the file; a failure to do so is kept in `problem`."""
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            self._fail(error)
        self._file = None

    def _fail(self, error: OSError) -> None:
        self.problem = WriteError(
            f"cannot write {self.path}: {error.strerror}",
            "the trace is incomplete; the text is not",
        )
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
