"""Every step's logits on disk, as numpy reads them: `np.load(file, mmap_mode="r")`."""

from __future__ import annotations

import contextlib
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from decodecli.errors import UsageError, WriteError

_HEADER = 128  # bytes; room for any number of rows


class LogitsFile:
    """A `.npy` file of float32, (steps, vocabulary), that grows a row a step.

    The number of rows in its header is written again after every row, so that whatever ends the run
    leaves a file that numpy opens, with every whole row. Of several samples each has a file of its
    own: `name-1.npy`, `name-2.npy`, …

    A write that fails stops the file, not the run: `problem` is None until then, and a `WriteError`
    after. What a file held before is gone with the first row, not sooner.

    Raises:
        UsageError: the folder is not there, or the path is one, without a name, or no file on a disk.
        WriteError: the file cannot be opened.
    """

    def __init__(self, path: str, samples: int = 1) -> None:
        self.problem: WriteError | None = None
        self._given, self._samples = path, samples
        if Path(path).name in ("", ".."):
            raise UsageError(f"--save-logits {path!r} names no file", "give a file name")
        self._file: FileIO | None = None
        self.path, self._rows = self._path_of(1), 0
        self.start(1)

    def start(self, sample: int) -> None:
        """Go on with a sample's file; they are counted from 1."""
        path = self._path_of(sample)
        if self.problem is not None or (self._file is not None and path == self.path):
            return
        self.close()
        self.path, self._rows = path, 0
        try:
            self._file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666), "r+")
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"--save-logits {self._given}: {path.parent} is no folder to write in",
                "give a file name in a folder that exists",
            ) from None
        except IsADirectoryError:
            raise UsageError(
                f"--save-logits {self._given} is a folder", "give a file name"
            ) from None
        except OSError as error:
            raise WriteError(
                f"cannot write {path}: {error.strerror}", "choose another file"
            ) from error
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.close()
            raise UsageError(
                f"--save-logits {self._given} is no file on a disk", "give a file name"
            )

    def _path_of(self, sample: int) -> Path:
        path = Path(os.path.expanduser(self._given))
        return path if self._samples == 1 else path.with_name(f"{path.stem}-{sample}.npy")

    def write(self, logits: Any) -> None:
        """Append a row, anything that numpy takes for (vocabulary,) float32; after a failure, do
        nothing."""
        if self._file is None:
            return
        row = np.ascontiguousarray(logits, dtype="<f4")
        try:
            if not self._rows:
                self._file.truncate(0)
                self._write_header(len(row))
            _write_all(self._file, row.data.cast("B"))
            self._rows += 1
            self._write_header(len(row))
        except OSError as error:
            self._fail(error, len(row))

    def _write_header(self, width: int) -> None:
        """Write the header, and go to the end of the last whole row."""
        assert self._file is not None
        self._file.seek(0)
        _write_all(self._file, _header(self._rows, width))
        self._file.seek(_HEADER + self._rows * width * 4)

    def close(self) -> None:
        """Close the file; one that came to be without getting a row goes again."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            empty = not self._rows and not os.fstat(file.fileno()).st_size
            file.close()
            if empty:
                self.path.unlink()

    def _fail(self, error: OSError, width: int) -> None:
        self.problem = WriteError(
            f"cannot write {self.path}: {error.strerror}",
            f"it has the logits of {self._rows} steps; the text is whole",
        )
        if self._file is not None:
            with contextlib.suppress(OSError):  # the part of a row that there was room for
                self._file.truncate(_HEADER + self._rows * width * 4)
        self.close()


_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends


def _header(rows: int, width: int) -> bytes:
    """Version 1.0 of the format, filled up with spaces as it asks for."""
    shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    words = shape.encode("ascii").ljust(_HEADER - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words


def _write_all(file: FileIO, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
