"""The model card's tables, as Markdown for people and as `card.json` for programs.

`MODEL_CARD.md` is written by hand around sections between markers; `fill` renews a section.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SECTIONS = {"data": "Data", "training": "Training", "results": "Results"}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _quoted(text: str) -> str:
    """Text for one Markdown table cell or quote: no line ends, no bars, nothing unprintable."""
    safe = "".join(c if c.isprintable() else " " for c in text.replace("\n", " ⏎ "))
    return safe.replace("|", "\\|").replace("<", "&lt;").replace("`", "'").strip()


def results_text(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    knowledge = [
        [
            title,
            str(row["facts"]),
            _percent(row["stated"]),
            _percent(row["asked in held-out words"]),
        ]
        for title, row in results["knowledge"].items()
    ]
    temperatures = [
        [
            f"{row['temperature']:g}",
            f"{_percent(row['accuracy'])} "
            f"({_percent(row['lowest'])} to {_percent(row['highest'])})",
            _percent(row["distinct_trigrams"]),
            _percent(row["known_words"]),
        ]
        for row in results["temperatures"]
    ]
    prompts = [
        [
            f"`{row['prompt']}`",
            _quoted(row["greedy"]),
            str(row["tokens"]),
            "yes" if row["cold_is_greedy"] else "no",
        ]
        for row in results["prompts"]
    ]
    bare = [[f"`{row['prompt']}`", _quoted(row["without_bos"])] for row in results["prompts"]]
    blocks = [
        f"**{results['bits_per_byte']:.4f} bits per byte** on {results['stories']} held-out "
        f"stories, each read from its own `<s>` ({results['bits_per_byte_without_bos']:.4f} "
        f"without `<s>`); a token is {results['bytes_per_token']:.2f} bytes there.",
        "Greedy answers that are right:",
        _table(["facts", "number", "sentence completed", "asked in held-out words"], knowledge),
    ]
    if temperatures:
        blocks += [
            "By temperature, no filter: right completions of 400 capitals and other facts (mean "
            "and range of 5 seeds), and over 20 stories of up to 120 tokens the share of trigrams "
            "of words that are distinct, and of words that occur in held-out stories:",
            _table(["T", "right", "distinct trigrams", "known words"], temperatures),
        ]
    blocks += [
        "Greedy text (up to 80 tokens), and whether T = 0.001 with seed 0 gives the same:",
        _table(["prompt", "text", "tokens", "T = 0.001 same"], prompts),
        "The same prompts without `<s>`; the total variation between the next token's two "
        f"distributions is {results['bos_total_variation']:.2f} on average:",
        _table(["prompt", "greedy text without `<s>`"], bare),
        f"T = 20, five stories: {_percent(results['hot']['known_words'])} of the words occur in "
        f"held-out stories. The first begins: {_quoted(results['hot']['text'][:160])}",
    ]
    return "\n\n".join(blocks)


def data_text(shares: dict[str, dict[str, int]], drawn: dict[str, int]) -> str:
    """What the sources hold after cleaning, and how many tokens the training read of each group."""
    rows = [
        [name, *(f"{row[key]:,}" for key in ("documents", "heldout", "characters"))]
        for name, row in shares.items()
    ]
    total = max(sum(drawn.values()), 1)
    read = [[name, f"{count:,}", _percent(count / total)] for name, count in drawn.items()]
    return "\n\n".join(
        [
            _table(["source", "training documents", "held out", "training characters"], rows),
            _table(["group", "tokens read", "share"], read),
        ]
    )


def training_text(history: list[dict[str, float]]) -> str:
    """The held-out curve while training (120 held-out stories, bfloat16 autocast)."""
    rows = [
        [
            f"{point['minutes']:.0f}",
            f"{point['tokens'] / 1e6:.1f} M",
            f"{point['bits_per_byte']:.4f}",
        ]
        for point in history
    ]
    return _table(["minutes", "tokens", "bits per byte"], rows)


def fill(folder: Path, name: str, text: str) -> None:
    """Renew one section of `MODEL_CARD.md`; a card that is not there yet is begun."""
    path = folder / "MODEL_CARD.md"
    if not path.exists():
        parts = [f"## {title}\n\n{_begin(key)}\n{_end(key)}\n" for key, title in SECTIONS.items()]
        path.write_text("\n".join(["# Model card\n", *parts]), encoding="utf-8")
    before, _, rest = path.read_text(encoding="utf-8").partition(_begin(name))
    _, _, after = rest.partition(_end(name))
    path.write_text(f"{before}{_begin(name)}\n\n{text}\n\n{_end(name)}{after}", encoding="utf-8")


def _begin(name: str) -> str:
    return f"<!-- {name}: begin -->"


def _end(name: str) -> str:
    return f"<!-- {name}: end -->"


def note(folder: Path, facts: dict[str, Any]) -> None:
    """Add facts to `card.json`."""
    path = folder / "card.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps(known | facts, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def update(folder: Path, results: dict[str, Any]) -> None:
    """Put the results into both cards."""
    fill(folder, "results", results_text(results))
    kept = ("stories", "knowledge", "temperatures", "bos_total_variation")
    note(
        folder,
        {
            "bits_per_byte": round(results["bits_per_byte"], 4),
            "results": {key: results[key] for key in kept},
        },
    )
