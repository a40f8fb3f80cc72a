"""The files that a run may write beside its text: the trace as strict JSON lines, and every step's
logits as numpy reads them, `np.load(file, mmap_mode="r")`.

A write that fails stops the file, not the run: `problem` is None until then, and a `WriteError` after.
What a file held before is gone with the first record, not sooner.
"""

from __future__ import annotations

import contextlib
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Any

from decodecli.errors import UsageError, WriteError

_HEADER = 128  # bytes of the logits' header; room for any number of rows
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends


def sample_path(path: str, sample: int, samples: int) -> str:
    """The file of one of several samples, counted from 1: `text-1.png` and so on; of one, `path`."""
    whole = Path(path)
    return path if samples == 1 else str(whole.with_stem(f"{whole.stem}-{sample}"))


class TraceFile:
    """A trace on disk, each line in the file as soon as it is written.

    Raises:
        UsageError: the folder is not there, or the path is one.
        WriteError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        if path == "-":
            raise UsageError("--trace - names no file", "--format jsonl writes to standard output")
        self.path = Path(os.path.expanduser(path))
        self.problem: WriteError | None = None
        self._has_lines = False
        flags = os.O_WRONLY | os.O_APPEND
        self._file: FileIO | None = _open(f"--trace {path}", self.path, flags)

    def write(self, line: str) -> None:
        """Append one record's line; after a failure, do nothing."""
        if self._file is None:
            return
        try:
            if not self._has_lines:
                with contextlib.suppress(OSError):  # a device or pipe has nothing to cut
                    self._file.truncate(0)
                self._has_lines = True
            _write_all(self._file, f"{line}\n".encode())
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Close the file; a failure to do so is kept in `problem`."""
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        hint = "the text was printed whole; only the trace is incomplete"
        self.problem = WriteError(f"cannot write {self.path}: {error.strerror}", hint)
        self.close()


class LogitsFile:
    """A `.npy` file of float32, (steps, vocabulary), that grows a row a step.

    The number of rows in its header is written again after every row, so that whatever ends the run
    leaves a file that numpy opens, with every whole row. Of several samples each has a file of its
    own: `name-1.npy`, `name-2.npy`, …

    Raises:
        UsageError: the folder is not there, or the path is one, without a name, or no file on a disk.
        WriteError: the file cannot be opened.
    """

    def __init__(self, path: str, samples: int = 1) -> None:
        self.problem: WriteError | None = None
        self._option = f"--save-logits {path}"
        if Path(path).name in ("", ".."):
            raise UsageError(f"--save-logits {path!r} names no file", "give a file name")
        self._base, self._samples = Path(os.path.expanduser(path)), samples
        self.path, self._rows = self._base, 0
        self._file: FileIO | None = None
        self.start(1)

    def start(self, sample: int) -> None:
        """Go on with a sample's file; they are counted from 1."""
        path = Path(sample_path(str(self._base), sample, self._samples))
        if self.problem is not None or (self._file is not None and path == self.path):
            return
        self.close()
        self.path, self._rows = path, 0
        self._file = _open(self._option, path, os.O_RDWR)
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.close()
            raise UsageError(f"{self._option} is no file on a disk", "give a file name")

    def write(self, logits: Any) -> None:
        """Append a row, anything that numpy takes for (vocabulary,) float32; after a failure, do
        nothing."""
        import numpy as np

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
            hint = f"it has the logits of {self._rows} steps; the text is whole"
            self.problem = WriteError(f"cannot write {self.path}: {error.strerror}", hint)
            with contextlib.suppress(OSError):  # the part of a row that there was room for
                self._file.truncate(_HEADER + self._rows * len(row) * 4)
            self.close()

    def _write_header(self, width: int) -> None:
        """Write the header in version 1.0 of the format, filled up with spaces as it asks for, and go to
        the end of the last whole row."""
        assert self._file is not None
        shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self._rows}, {width}), }}"
        words = shape.encode("ascii").ljust(_HEADER - 11) + b"\n"
        self._file.seek(0)
        _write_all(self._file, b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words)
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


def _open(option: str, path: Path, flags: int) -> FileIO:
    """Open a file for an option, making it where it is not there, and leave what it holds."""
    try:
        descriptor = os.open(path, flags | os.O_CREAT | _BINARY, 0o666)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        fault = (
            " is a folder"
            if path.is_dir()
            else f": {path.parent} does not exist, or takes no files"
        )
        hint = "give a file name in a folder that exists"
        raise UsageError(option + fault, hint) from None
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error
    return FileIO(descriptor, "r+" if flags & os.O_RDWR else "w")


def _write_all(file: FileIO, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def read_logits(path: str, number: int) -> Any:
    """The logits of a trace's run of that number, from 1, (steps, vocab), mapped.

    Raises:
        UsageError: there is no such file, or it is none of numpy's.
    """
    import numpy as np

    file = Path(os.path.expanduser(path))
    if number > 1 or not file.exists():
        file = Path(sample_path(str(file), number, samples=2))
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise UsageError(
            f"{file}: {'there is no such file' if missing else 'this is no file of numpy'}",
            "give what generate --save-logits wrote beside this trace",
        ) from None
