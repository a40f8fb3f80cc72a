"""Reads the corpora, cleans them, removes what occurs twice, and sets documents aside as held-out.

`documents(corpora)` is the whole of it: a list of `Document`, the same on every run. What goes in
where, and why, is said at each reader.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

SEPARATOR = "<|endoftext|>"
GRAM = 13  # words in the n-grams that say "this text has been here before"
DUPLICATE_SHARE = 0.25  # a document with more of its n-grams seen in earlier ones is left out
HELDOUT_SHARE = 0.03  # and a held-out one with more of them in the training text is left out, too
PART_CHARACTERS = 3500  # long tales are cut at paragraphs into parts of about this size

_PLAIN = str.maketrans(
    {
        "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "‚": "'", "`": "'",
        "–": "-", "…": "...", "\u00a0": " ", "\u00ad": "", "\ufeff": "", "\u200b": "", "\t": " ",
        "\r": "",
    }
)  # fmt: skip
_MOJIBAKE = {"â€œ": '"', "â€™": "'", "â€˜": "'", "â€¦": "...", "â€": '"'}


@dataclass(frozen=True)
class Document:
    """One text with where it came from; a part of a long tale may lack its `start` or `end`."""

    source: str
    text: str
    start: bool = True
    end: bool = True
    heldout: bool = False


def normalise(text: str) -> str:
    """Plain quotes, single spaces, no trailing blanks; at most one empty line in a row."""
    for wrong, right in _MOJIBAKE.items():
        text = text.replace(wrong, right)
    text = unicodedata.normalize("NFC", text).translate(_PLAIN)
    text = re.sub(r"\s*(?:—|--+)\s*", " - ", text)
    text = re.sub(r" +", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def grams(text: str) -> set[int]:
    """Hashes of the `GRAM`-word runs of a text; a short text counts as one run."""
    words = _words(text)
    last = max(1, len(words) - GRAM + 1)
    return {hash(tuple(words[i : i + GRAM])) for i in range(last)}


def _fraction(text: str) -> float:
    """A number in [0, 1) that depends on the words only, for a split that never changes."""
    digest = hashlib.blake2b(" ".join(_words(text)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _separated(path: Path) -> Iterator[str]:
    for text in path.read_text(encoding="utf-8", errors="ignore").split(SEPARATOR):
        if clean := normalise(text):
            yield clean


def _stories(folder: Path) -> Iterator[Document]:
    """TinyStories; paragraphs are one newline apart in all files, as they are in most."""
    for path in sorted(folder.glob("*.txt")):
        if path.name in ("ORIGIN.txt", "tinystories_unsplit.txt"):
            continue
        source = "tinystories-recased" if "recased" in path.name else "tinystories"
        for text in _separated(path):
            yield Document(source, re.sub(r"\n+", "\n", text))


def _unsplit(path: Path, seen: set[int]) -> Iterator[Document]:
    """The file without separators: runs of paragraphs that no other file has, as later parts."""
    if not path.exists():
        return
    run: list[str] = []
    for paragraph in [*re.split(r"\n+", normalise(path.read_text(encoding="utf-8"))), ""]:
        fresh = bool(paragraph) and len(grams(paragraph) & seen) < 0.3 * len(grams(paragraph))
        opening = paragraph.startswith(("Once upon a time", "One day, there was"))
        if run and (not fresh or opening or sum(map(len, run)) > 1200):
            text = "\n".join(run)
            if len(text) > 200:
                yield Document("tinystories-unsplit", text, start=False, end=False)
            run = []
        if fresh:
            run.append(paragraph)


def parts(source: str, text: str) -> Iterator[Document]:
    """Cut a long text at paragraph ends into parts of about `PART_CHARACTERS`."""
    held: list[str] = []
    start = True
    for paragraph in text.split("\n\n"):
        held.append(paragraph)
        if sum(map(len, held)) > PART_CHARACTERS:
            yield Document(source, "\n\n".join(held), start=start, end=False)
            held, start = [], False
    if held and len("\n\n".join(held)) > 200:
        yield Document(source, "\n\n".join(held), start=start)


def unwrapped(text: str) -> str:
    """Lines of a paragraph joined, where the text was broken at some 70 characters."""
    lines = [line for line in text.split("\n") if line]
    broken = [line for line in lines if 45 <= len(line) <= 80 and line[-1] not in '.!?"']
    if len(broken) < 0.4 * len(lines):
        return text
    return "\n\n".join(part.replace("\n", " ") for part in text.split("\n\n"))


def book(text: str) -> str:
    """The prose of a Gutenberg book: contents, headings, notes and illustrations taken out."""
    head = text[: len(text) // 6]
    contents = [m.end() for m in re.finditer(r"(?im)^\s*(?:table of )?contents[.:]*\s*$", head)]
    if contents:
        text = text[contents[-1] :]
    text = re.split(r"(?m)^\s*(?:NOTES AND REFERENCES|FOOTNOTES:?|TRANSCRIBER'S NOTES?)", text)[0]
    text = re.sub(r"\[(?:Illustration|Footnote|Transcriber|Note)[^\]]*\]", "", text)
    text = re.sub(r"_([^_\n]+)_", r"\1", text)
    kept = []
    for block in re.split(r"\n\s*\n", text):
        verse = sum(line.startswith("  ") for line in block.splitlines()) > 1
        joined = ("\n" if verse else " ").join(line.strip() for line in block.splitlines())
        letters = [c for c in joined if c.isalpha()]
        if not letters or sum(map(str.isupper, letters)) > 0.6 * len(letters):
            continue
        if len(joined) < 60 and not re.search(r"[.!?\"'”’:,;]$", joined):
            continue
        kept.append(joined)
    prose = next((i for i, block in enumerate(kept) if len(block) > 250), 0)
    return normalise("\n\n".join(kept[prose:]))


def _tales(corpora: Path) -> Iterator[Document]:
    for path in sorted((corpora / "fairytaleqa-public-domain").glob("fairytales.txt")):
        for text in _separated(path):
            yield from parts("fairytales", unwrapped(text))
    for path in sorted((corpora / "standardebooks-children").glob("*.txt")):
        if path.name == "ORIGIN.txt":
            continue
        text = normalise(path.read_text(encoding="utf-8"))
        if path.name.startswith("aesop"):
            for fable in re.split(r"\n\n(?=(?:The|A|An) [^.!?\n]{4,60}\n\n)", text):
                yield Document("books", fable.partition("\n\n")[2] or fable)
        else:
            yield from parts("books", text)
    for path in sorted((corpora / "gutenberg-children").glob("*.txt")):
        if path.name == "ORIGIN.txt":
            continue
        text = book(path.read_text(encoding="utf-8"))
        if path.name.startswith("Fifty-Famous"):  # this one di-vides its long words
            text = re.sub(r"(?<=[a-z])-(?=[a-z])", "", text)
        yield from parts("books", text)


def _storybooks(folder: Path) -> Iterator[Document]:
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if not line:
                continue
            if text := normalise(json.loads(line)["text"]):
                yield from parts("storybooks", text)


def _fables(folder: Path) -> Iterator[Document]:
    for path in sorted(folder.glob("fables*.txt")):
        yield from (Document("fables", text) for text in _separated(path))


def _unique(candidates: Iterable[Document], seen: set[int]) -> Iterator[Document]:
    for document in candidates:
        own = grams(document.text)
        if len(own & seen) <= DUPLICATE_SHARE * len(own):
            yield document
        seen |= own


def documents(corpora: Path, heldout: float = 0.02) -> list[Document]:
    """All texts of a corpora folder, cleaned and unique, with the held-out ones marked.

    A `heldout` share of the TinyStories, storybooks and fables, chosen by a hash of their words,
    is set aside; a held-out text that shares long n-grams with the training text is dropped, so
    that no near-duplicate straddles the two.
    """
    seen: set[int] = set()
    found = list(_unique(_stories(corpora / "tinystories"), seen))
    found += _unsplit(corpora / "tinystories" / "tinystories_unsplit.txt", seen)
    found += _unique(_tales(corpora), seen)
    found += _unique(_storybooks(corpora / "storybooks-cc-by"), seen)
    found += _unique(_fables(corpora / "tinyfabulist-fables"), seen)
    marked = [replace(d, heldout=_set_aside(d, heldout)) for d in found]
    training: set[int] = set()
    for document in marked:
        if not document.heldout:
            training |= grams(document.text)
    return [d for d in marked if not d.heldout or _is_apart(d, training)]


def _set_aside(document: Document, share: float) -> bool:
    may_be = document.source in ("tinystories", "storybooks", "fables") and document.start
    return may_be and _fraction(document.text) < share


def _is_apart(document: Document, training: set[int]) -> bool:
    own = grams(document.text)
    return len(own & training) <= HELDOUT_SHARE * len(own)


def shares(found: Iterable[Document]) -> dict[str, dict[str, int]]:
    """Documents, held-out documents and characters of each source, for the model card."""
    table: dict[str, Counter[str]] = {}
    for document in found:
        row = table.setdefault(document.source, Counter(documents=0, heldout=0, characters=0))
        row["heldout" if document.heldout else "documents"] += 1
        row["characters"] += 0 if document.heldout else len(document.text)
    return {source: dict(row) for source, row in table.items()}
