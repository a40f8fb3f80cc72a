"""Write what the documentation takes from the program itself: help text and pictures of real runs.

python docs/build.py           write README's help sections and docs/*.svg
python docs/build.py --check   exit 1 when the README's help sections are out of step
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
WIDTH = 80
# Picture → the command it shows, run at a terminal of WIDTH columns.
PICTURES = {
    "generate.svg": [
        "generate", "The capital of Japan is", "--temperature", "1.4", "--top-p", "0.9",
        "--seed", "42", "--max-new-tokens", "6", "--candidates", "6",
    ],
    "line.svg": [
        "generate", "Once upon a time", "--tables", "line", "--temperature", "0.7",
        "--seed", "3", "--max-new-tokens", "24",
    ],
}  # fmt: skip
_ESCAPE = r"\x1b\[[0-9;?]*[A-Za-z]"
_SECTION = re.compile(r"(<!-- help: (.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def help_text(command: str) -> str:
    """`decodecli COMMAND --help` as it prints at 80 columns without colour."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "dumb", "NO_COLOR": "1"}
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        environment.pop(name, None)
    words = [sys.executable, "-m", "decodecli", *command.split(), "--help"]
    printed = subprocess.run(
        words, env=environment, capture_output=True, encoding="utf-8", check=True
    ).stdout
    return "\n".join(line.rstrip() for line in printed.strip("\n").splitlines()).strip("\n")


def with_help(text: str) -> str:
    """The README with every help section as the program prints it now."""

    def section(match: re.Match[str]) -> str:
        return f"{match[1]}```text\n{help_text(match[2])}\n```\n{match[4]}"

    return _SECTION.sub(section, text)


def draw(name: str, command: list[str]) -> None:
    """Run a command at a pseudo-terminal and export what stays on the screen as SVG, by Rich."""
    import pty
    import shlex

    from rich.console import Console
    from rich.text import Text

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS=str(WIDTH), LINES="50", TERM="xterm-256color")
        os.environ.pop("NO_COLOR", None)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress and notices
        os.execv(sys.executable, [sys.executable, "-m", "decodecli", *command])
    data = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        data += piece
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise SystemExit(f"{command} ended with {status}")
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.assemble(("$ ", "bold"), "decodecli " + shlex.join(command)))
    console.print(Text.from_ansi("\n".join(settled(data.decode("utf-8")))))
    title = "decodecli " + command[0]
    console.save_svg(str(ROOT / "docs" / name), title=title, unique_id=name.removesuffix(".svg"))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    before = README.read_text(encoding="utf-8")
    after = with_help(before)
    if check:
        if before != after:
            sys.exit("README.md is out of step with --help: run `make docs`")
        return
    README.write_text(after, encoding="utf-8")
    for name, command in PICTURES.items():
        draw(name, command)


if __name__ == "__main__":
    main()
