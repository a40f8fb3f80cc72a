"""docs/TOUR.md: the text of docs/tour_text.md with real runs in it, and every claim checked.

In the text, a block ```console runs its lines that begin with `$ `, in one folder from first to last,
and their output follows each. A word behind `console` says otherwise:

    console plot=NAME   no output is shown; the picture NAME, which a command wrote, is kept
    console draw=NAME   no output is shown; NAME is a picture of it at a terminal

A `{name}` is a number that the section's function in tour_claims.py gives, which also checks what the
section says.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import tempfile
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from sweep_picture import draw_readme
from terminal import WIDTH, draw, printed

DOCS = Path(__file__).resolve().parent
TEXT, PAGE, PICTURES = "tour_text.md", "TOUR.md", "tour"
README_PICTURE, README_SWEEP = "temperature.svg", "both"
_NOTE = "<!-- Written by `make docs` from docs/tour_text.md. -->\n\n"
_BLOCK = re.compile(r"^```console(?: (\w+)=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\{(\w+)\}")
_HEADING = re.compile(r"(?m)^(?=## )")


class Session:
    """A folder in which the tour's commands run one after another.

    pictures: where pictures of the page go.
    """

    def __init__(self, folder: Path, pictures: Path) -> None:
        self.folder, self.pictures = folder, pictures
        self.printed = cache(lambda line: printed(words(line), self.folder))

    def json(self, line: str) -> Any:
        """What a command prints as JSON, or as a list of JSON lines where it has no other."""
        form = "jsonl" if words(line)[0] == "generate" else "json"
        text = self.printed(f"{line} --format {form}")
        return list(map(json.loads, text.splitlines())) if form == "jsonl" else json.loads(text)

    def settings(self, sweep: str, **wanted: Any) -> list[dict[str, float]]:
        """The numbers of a sweep's settings in grid order, those with these values."""
        with (self.folder / sweep / "summary.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        chosen = [row for row in rows if all(row[k] == str(v) for k, v in wanted.items())]
        return [{k: float(v) for k, v in row.items() if _is_number(v)} for row in chosen]

    def cells(self, sweep: str, **wanted: Any) -> list[dict[str, Any]]:
        """A sweep's cells in grid order, those of these values (a field's, or a parameter's)."""
        text = (self.folder / sweep / "runs.jsonl").read_text(encoding="utf-8")
        found = sorted(map(json.loads, text.splitlines()), key=lambda cell: cell["index"])
        flat = [cell["params"] | cell for cell in found]
        return [cell for cell in flat if all(cell[k] == v for k, v in wanted.items())]


def words(line: str) -> list[str]:
    """The words after `decodecli` of a command line; raises ValueError for another command."""
    program, *rest = shlex.split(line)
    if program != "decodecli" or not rest:
        raise ValueError(f"not a decodecli command: {line}")
    return rest


def commands(text: str) -> list[str]:
    """The command lines of a page or its source: those that are run, and those for another model."""
    found = []
    for block in re.findall(r"^```(?:console|sh)\b[^\n]*\n(.*?)^```$", text, re.M | re.S):
        lines = [line.removeprefix("$ ") for line in block.splitlines()]
        found += [line for line in lines if line.startswith("decodecli ")]
    return found


def shown(text: str) -> dict[str, str]:
    """Each command of a page that has its output below it, and that output."""
    found = {}
    for _, _, block in _BLOCK.findall(text):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            line, _, output = part.partition("\n")
            if output.strip():
                found[line] = output.strip("\n")
    return found


def write(docs: Path) -> None:
    """Run the tour; write `docs`/TOUR.md, its pictures, and the README's picture of a sweep.

    Raises:
        SystemExit: a command failed, or a claim does not hold.
    """
    pictures = docs / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), pictures)
        page = _page((DOCS / TEXT).read_text(encoding="utf-8"), session)
        _draw_readme(session.folder / README_SWEEP, docs / README_PICTURE)
    (docs / PAGE).write_text(page, encoding="utf-8")


def _page(text: str, session: Session) -> str:
    """The text with its blocks run and its numbers filled in, section by section."""
    from tour_claims import CLAIMS

    sections = _HEADING.split(text)
    filled = [_BLOCK.sub(lambda block: _run(block, session), section) for section in sections]
    if len(CLAIMS) != len(sections):
        raise SystemExit(f"{len(sections)} sections, and {len(CLAIMS)} functions with their claims")
    pairs = zip(CLAIMS, sections, filled, strict=True)
    return _NOTE + "".join(_fill(done, raw, claims(session)) for claims, raw, done in pairs)


def _run(block: re.Match[str], session: Session) -> str:
    """A block with the output of its commands, or with its picture made."""
    how, name, body = block.groups()
    lines = [line.removeprefix("$ ") for line in body.splitlines()]
    parts = []
    for line in lines:
        if how == "draw":
            draw(session.pictures / name, words(line), session.folder)
            parts.append(f"$ {line}")
            continue
        output = session.printed(line)
        parts.append(f"$ {line}" if how else f"$ {line}\n{_folded(output)}")
    if how == "plot":
        shutil.copyfile(session.folder / name, session.pictures / name)
    body = ("\n" if how else "\n\n").join(parts)
    return f"```console\n{body}\n```"


def _folded(output: str) -> str:
    """Lines of running text folded at words to the width of a terminal."""
    found = []
    for line in output.splitlines():
        found += [line] if cell_len(line) <= WIDTH else textwrap.wrap(line, WIDTH)
    return "\n".join(found)


def _fill(done: str, raw: str, numbers: dict[str, str]) -> str:
    """A section with its numbers; each that is given must be used, and the other way round.

    raw: the section as it was before its blocks ran, whose output may have braces of its own.
    """
    asked = set(_NUMBER.findall(raw))
    if asked != set(numbers):
        raise SystemExit(f"{PAGE}: numbers without a place or a value: {asked ^ set(numbers)}")
    for name, value in numbers.items():
        done = done.replace("{" + name + "}", value)
    return done


def in_step(docs: Path = DOCS) -> bool:
    """Whether a page has its source's words and commands; numbers and outputs may be any."""
    pattern = re.escape(_NOTE)
    text, place = (DOCS / TEXT).read_text(encoding="utf-8"), 0
    for found in re.finditer(rf"{_BLOCK.pattern}|{_NUMBER.pattern}", text, re.M | re.S):
        pattern += re.escape(text[place : found.start()])
        pattern += _block_pattern(found[1], found[3]) if found[3] else r"[^\n]+?"
        place = found.end()
    pattern += re.escape(text[place:])
    page = docs / PAGE
    return page.exists() and bool(re.fullmatch(pattern, page.read_text(encoding="utf-8"), re.S))


def _block_pattern(how: str | None, body: str) -> str:
    """What a block may have become."""
    output = "" if how else r"(?:(?!```|\$ ).*\n)*?".replace(".*", r"[^\n]*")
    lines = "".join(re.escape(line + "\n") + output for line in body.splitlines())
    return "```console\n" + lines + "```"


def _draw_readme(sweep: Path, picture: Path) -> None:
    """The README's picture, of the cells in a sweep's folder."""
    from decodecli.sweeps.grid_file import read_grid
    from decodecli.sweeps.store import read_records
    from decodecli.sweeps.summary import summarise

    grid = read_grid(sweep / "sweep.toml")
    axes = {"temperature": tuple(grid.values["temperature"])}
    records = list(read_records(sweep))
    seeds = grid.values["seed"]
    draw_readme(
        summarise("builtin", axes, seeds, len(grid.prompts), len(records), records), picture
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
