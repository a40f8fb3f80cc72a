"""stdin, stdout, stderr: the prompt comes in, text and records go out, errors are told once."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import select
import shlex
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any

from decodecli import signals
from decodecli.errors import PromptError, UsageError, WriteError
from decodecli.text_files import (
    MAX_DATA_BYTES,
    MAX_PROMPT_BYTES,
    check_size,
    read_file,
    read_stream,
)


def tell(message: str, hint: str = "") -> None:
    """A line on stderr, and a second, indented one for what to do; on a terminal, wrapped."""
    text = message + (f"\n{_INDENT}{hint}" if hint else "")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        width = None
        if is_terminal(sys.stderr):
            columns = os.environ.get("COLUMNS", "")
            if columns.isdecimal():
                width = int(columns)
            else:
                width = os.get_terminal_size(sys.stderr.fileno()).columns
        sys.stderr.write(_wrapped(printable(text), width) + "\n")
        sys.stderr.flush()


class Notices:
    """What a person should know, on stderr, unless `quiet`."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def tell(self, message: str) -> None:
        if not self.quiet:
            tell(f"Note: {message}")

    def tell_all(self, messages: Sequence[str]) -> None:
        for message in messages:
            self.tell(message)


_INDENT = " " * len("Error: ")
_COMMAND = re.compile(r"(?:(?<=: )|^)(?:decodecli|pip install) ")  # up to the end of its line


def _wrapped(text: str, width: int | None) -> str:
    """Lines broken between words. A command that does not fit stands on a line of its own, as one, so
    that it can be copied."""
    if not width:
        return text
    from rich.cells import cell_len

    rows: list[str] = []
    for line in text.split("\n"):
        command = _COMMAND.search(line.strip()) if cell_len(line) > width else None
        rest = line.strip()[command.start() :] if command else ""
        row = line[: len(line) - len(rest)] if rest else line
        words = row.split(" ")
        row = words[0]
        for word in words[1:]:
            if row.strip() and cell_len(f"{row} {word}") > width:
                rows.append(row)
                row = _INDENT + word
            else:
                row += f" {word}"
        rows += [row.rstrip()] if row.strip() or not rest else []
        rows += [_INDENT + rest] if rest else []
    return "\n".join(rows)


def printable(text: str) -> str:
    """No character that could steer the terminal or hide, nothing that the stream cannot encode."""
    from decodecli.render.escaping import spelt_out

    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return spelt_out(text).encode(encoding, "replace").decode(encoding)


def write_stdout(text: str) -> None:
    """Text to stdout as UTF-8, at once.

    Raises:
        BrokenPipeError: the reader has gone.
        WriteError: it could not be written.
    """
    if sys.stdout is None:
        if text:
            raise WriteError("standard output is closed", "leave out >&-")
        return
    try:
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:  # a replaced stdout, as in a notebook
            sys.stdout.write(text)
        else:
            sys.stdout.flush()
            buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise write_error(error) from error


def write_error(error: OSError) -> BaseException:
    """What a failure to write to stdout is: an error, or the closing of the terminal."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if error.errno == errno.EIO and stat.S_ISCHR(os.fstat(sys.stdout.fileno()).st_mode):
            return signals.Interrupted(signals.HANGUP)
    discard_stdout()
    return WriteError(f"cannot write to standard output: {error.strerror}", "is the disk full?")


def flush_stdout() -> None:
    """Flush now, so that a failure is not left to the interpreter's end."""
    write_stdout("")


def discard_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush is quiet."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; a closed one is not."""
    try:
        return bool(stream is not None and stream.isatty())
    except ValueError:
        return False


def in_one_place() -> bool:
    """Whether stdout and stderr are one file, pipe or terminal, as after 2>&1."""
    try:
        out, err = os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino)


class _Unbuffered:
    """A terminal's text stream without Python's buffer, whose lock a write that hangs in another
    thread would hold at the interpreter's end."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._number = stream, stream.fileno()
        self.encoding, self.errors = stream.encoding, stream.errors

    def write(self, text: str) -> int:
        self._stream.flush()  # what others wrote comes first
        left = memoryview(text.encode(self.encoding, self.errors))
        while left:
            try:
                left = left[os.write(self._number, left) :]
            except BlockingIOError:
                select.select([], [self._number], [])
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._number)


def unbuffered(stream: Any) -> Any:
    """`stream`, past its buffer where it is a terminal with a file behind it."""
    if os.name != "posix" or not is_terminal(stream):
        return stream
    try:
        return _Unbuffered(stream)
    except (OSError, ValueError, AttributeError):
        return stream


def takes_nothing(stream: Any) -> bool:
    """Whether a stream is a terminal that hangs, so that writing to it would hang too."""
    if os.name != "posix" or not is_terminal(stream):
        return False
    try:
        return not select.select([], [stream.fileno()], [], 1.0)[1]
    except (OSError, ValueError):
        return False


def read_prompt(
    argument: str | None, file: str | None, notify: Callable[[str], None], default_note: str = ""
) -> str:
    """The prompt: the argument, or the file, or standard input when there is neither and stdin is not a
    terminal (`-` asks for it), or the built-in one.

    With an argument or a file stdin is not touched. Windows line ends of a file or of standard input
    are read as newlines.

    Args:
        notify: takes what a person should know of it.
        default_note: what to say, in front of the built-in prompt, where that is taken.

    Raises:
        UsageError: an argument and a file; a file that is not there, or is none.
        PromptError: bytes that are not UTF-8, or more than `MAX_PROMPT_BYTES` of them.
    """
    from decodecli.settings import BUILTIN_PROMPT

    if argument is not None and file is not None:
        raise UsageError("a prompt and --file were both given", "give one of them")
    if file is not None:
        data = read_file(file, f"--file {file}", MAX_PROMPT_BYTES)
        return _with_newlines(_decoded(data, file), file, notify)
    if argument is not None and argument != "-":
        data = os.fsencode(argument)
        check_size(len(data), "the prompt")
        note_file(argument, notify)
        return _decoded(data, "the prompt")
    is_absent = argument is None and (sys.stdin is None or is_terminal(sys.stdin))
    data = b"" if is_absent else _read_stdin(MAX_PROMPT_BYTES)
    if not data and argument is None:
        if default_note:
            notify(f"{default_note} {BUILTIN_PROMPT!r}")
        return BUILTIN_PROMPT
    return _with_newlines(_decoded(data, "standard input"), "standard input", notify)


def note_words(command: str, prompts: Sequence[str], notify: Callable[[str], None]) -> None:
    """Say that several prompts are words, where they are: they may be one prompt without its quotes."""
    if len(prompts) > 1 and all(re.fullmatch(r"[\w'’-]+[.,;:?!]?", word) for word in prompts):
        first = ", ".join(prompts[:4]) + (", …" if len(prompts) > 4 else "")
        text = " ".join(prompts)
        quoted = shlex.quote(text) if "!" in text else f'"{text}"'  # words need no more, but for !
        notify(
            f"{len(prompts)} prompts: {first}. If they are one, quote it: "
            f"decodecli {command} {quoted}"
        )


def note_file(argument: str, notify: Callable[[str], None]) -> None:
    """Say that a prompt is the name of a file, where it is: the file's text may be meant."""
    if os.path.isfile(argument):
        notify(f"there is a file of that name; did you mean --file {shlex.quote(argument)}?")


def read_data(file: str | None) -> tuple[str, str]:
    """Text from a file, or from standard input, and what to call it in a message; line ends are left as
    they are.

    Raises:
        UsageError: there is neither, or the file is not there, or is none.
        PromptError: bytes that are not UTF-8, or more than `MAX_DATA_BYTES` of them.
    """
    if file is not None and file != "-":
        return _decoded(read_file(file, f"--file {file}"), file), file
    if file is None and (sys.stdin is None or is_terminal(sys.stdin)):
        raise UsageError("there are no numbers", "give TOKEN=LOGIT …, --file FILE, or a pipe")
    return _decoded(_read_stdin(MAX_DATA_BYTES), "standard input"), "standard input"


def _read_stdin(limit: int) -> bytes:
    try:
        stream = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode())
        return read_stream(stream, "standard input", limit)
    except (OSError, ValueError, AttributeError):
        return b""  # closed


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")  # without a byte order mark
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{where} is not UTF-8 (byte {error.start}: 0x{data[error.start]:02X})",
            "convert it first, for example: iconv -f latin1 -t utf-8",
        ) from None


def _with_newlines(text: str, where: str, notify: Callable[[str], None]) -> str:
    """The text without one newline at its end, and with newlines for Windows line ends."""
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if "\r\n" in text:
        notify(f"{where} has Windows line ends, which are read as newlines")
    return text.replace("\r\n", "\n")
