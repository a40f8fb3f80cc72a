"""Write what the documentation takes from the program itself: help text, pictures and the tour.

python docs/build.py           write docs/CLI.md's help texts, docs/*.svg, docs/page.html,
                               docs/TOUR.md and its pictures
python docs/build.py --help-only  write docs/CLI.md alone, in seconds
python docs/build.py --check   exit 1 when docs/CLI.md or the tour's text are out of step
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import tour
from explore_picture import draw_explore
from terminal import draw, printed

ROOT = Path(__file__).resolve().parent.parent
CLI = ROOT / "docs" / "CLI.md"
# Picture → the command it shows.
PICTURES = {
    "generate.svg": [
        "generate", "The capital of Japan is", "--temperature", "1.4", "--top-p", "0.9",
        "--seed", "4", "--max-new-tokens", "6", "--candidates", "10",
    ],
    "line.svg": [
        "generate", "Once upon a time", "--tables", "line", "--temperature", "0.7",
        "--seed", "3", "--max-new-tokens", "24",
    ],
}  # fmt: skip
PAGE = [
    "generate", "Once upon a time", "--temperature", "1", "--top-p", "0.95", "--seed", "3",
    "--max-new-tokens", "30", "--what-if", "temperature=0.2", "--html",
]  # fmt: skip
_SECTION = re.compile(r"(<!-- help: (.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def with_help(text: str) -> str:
    """The page with every help section as the program prints it now."""

    def section(match: re.Match[str]) -> str:
        return f"{match[1]}```text\n{printed([*match[2].split(), '--help'])}\n```\n{match[4]}"

    return _SECTION.sub(section, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--help-only", action="store_true", help="write docs/CLI.md alone")
    options = parser.parse_args()
    check = options.check
    before = CLI.read_text(encoding="utf-8")
    after = with_help(before)
    if check:
        if before != after:
            sys.exit("docs/CLI.md is out of step with --help: run `make docs`")
        if not tour.in_step():
            sys.exit("docs/TOUR.md is out of step with docs/tour_text.md: run `make docs`")
        return
    CLI.write_text(after, encoding="utf-8")
    if options.help_only:
        return
    for name, command in PICTURES.items():
        draw(ROOT / "docs" / name, command)
    printed([*PAGE, str(ROOT / "docs" / "page.html")])
    draw_explore(ROOT / "docs" / "explore.svg")
    tour.write(ROOT / "docs")


if __name__ == "__main__":
    main()
