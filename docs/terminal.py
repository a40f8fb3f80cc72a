"""Commands as they are at a terminal of 80 columns: what they print, and pictures of it.

Neither one's own settings count nor the time: the same program gives the same text.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

WIDTH = 80
_ESCAPE = r"\x1b\[[0-9;?]*[A-Za-z]"
_TIMING = re.compile(r" in [\d.,]+ s \([\d.,]+/s\)")
_OURS = ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "COLORTERM")


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: no GPU, no network, no settings of one's own, no colour."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _OURS and not name.startswith("DECODECLI_")
    }
    return kept | {
        "COLUMNS": str(WIDTH),
        "TERM": "dumb",
        "NO_COLOR": "1",
        "PYTHONUTF8": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "XDG_CONFIG_HOME": os.devnull,
        "DECODECLI_CACHE": "off",
        "CUDA_VISIBLE_DEVICES": "",
        **more,
    }


def printed(words: Sequence[str], folder: Path | None = None) -> str:
    """What `decodecli WORDS` writes to standard output, run in `folder`.

    All such commands share this process: most of a short one's time goes into starting.
    """
    out, err = io.BytesIO(), io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment(), clear=True))
        stack.enter_context(chdir(folder or "."))
        stack.enter_context(patch("sys.stdin", io.StringIO()))
        stream = io.TextIOWrapper(out, encoding="utf-8", newline="\n", write_through=True)
        stack.enter_context(redirect_stdout(stream))
        stack.enter_context(redirect_stderr(err))
        from decodecli.cli.app import app

        try:
            app(list(words), prog_name="decodecli")
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        stream.detach()  # else its end would close the bytes
    if code:
        raise SystemExit(f"{shlex.join(words)} ended with {code}:\n{err.getvalue()}")
    lines = out.getvalue().decode("utf-8").strip("\n").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def draw(picture: Path, words: Sequence[str], folder: Path | None = None) -> None:
    """Run a command at a pseudo-terminal and export what stays on the screen as SVG, by Rich."""
    from rich.console import Console
    from rich.text import Text

    shown = _screen(words, folder)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.assemble(("$ ", "bold"), "decodecli " + shlex.join(words)))
        console.print(Text.from_ansi("\n".join(_TIMING.sub("", line) for line in settled(shown))))
        console.save_svg(str(picture), title="decodecli " + words[0], unique_id=picture.stem)


def _screen(words: Sequence[str], folder: Path | None) -> str:
    """Everything that a command sends to its terminal, in colour."""
    import pty

    colour = environment(TERM="xterm-256color", LINES="50")
    del colour["NO_COLOR"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress and notices
        os.chdir(folder or ".")
        os.execve(sys.executable, [sys.executable, "-m", "decodecli", *words], colour)
    data = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        data += piece
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise SystemExit(f"{shlex.join(words)} ended with {status}")
    return data.decode("utf-8")


def settled(output: str) -> list[str]:
    """The lines that remain when the live region has been erased: each erasure takes back what was
    written below the place where the cursor then stood."""
    kept: list[str] = [""]
    row = 0
    for part in re.split(r"(\r\n|\n|\r|\x1b\[[0-9;?]*[A-Za-z])", output):
        if part in ("\r\n", "\n"):
            row += 1
            if row == len(kept):
                kept.append("")
        elif re.fullmatch(r"\x1b\[\d*A", part):
            row = max(row - int(part[2:-1] or 1), 0)
        elif re.fullmatch(r"\x1b\[0?J", part):
            del kept[row + 1 :]
            kept[row] = ""
        elif part != "\r" and (part.endswith("m") or not re.fullmatch(_ESCAPE, part)):
            kept[row] += part
    return kept
