"""What `tokenize` returns: a text's tokens with their bytes and spans, and a vocabulary.

Plain values. A token's `data` are the bytes of the normalised input that it stands for: joined they
are the whole of it (a SentencePiece model's leading space included, white space that the tokenizer
drops not). Spans count characters of the input as it was typed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from decodecli.records.display import Displayed, field_values

KINDS = ("normal", "byte", "special", "added", "unknown")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One token of a text.

    position: its index among the tokens.
    token: the vocabulary's piece exactly.
    text: what it adds to the text; empty inside a character, whose last token has all of it.
    data: its bytes; none for a token that the tokenizer put there itself.
    kind: one of `KINDS`; byte tokens stand for bytes that are no whole characters.
    span: the characters of the input that it comes from, [start, end); None where there are none.
    """

    position: int
    token_id: int
    token: str
    text: str
    data: bytes
    kind: str
    span: tuple[int, int] | None = None

    @property
    def inserted(self) -> bool:
        """Whether the tokenizer put it there itself, as it does with BOS."""
        return not self.data and self.kind == "special"

    def as_dict(self) -> dict[str, Any]:
        values = _with_hex_bytes(self)
        start, end = values.pop("span") or (None, None)
        return values | {"start": start, "end": end}


@dataclass(frozen=True, slots=True)
class VocabularyRow:
    """One token of a vocabulary. `text` is None where its bytes are no whole characters."""

    token_id: int
    token: str
    text: str | None
    data: bytes
    kind: str
    script: str

    def as_dict(self) -> dict[str, Any]:
        return _with_hex_bytes(self)


def _with_hex_bytes(row: TokenRow | VocabularyRow) -> dict[str, Any]:
    """The fields of a row, `data` as `bytes` in hexadecimal digits."""
    return {
        "bytes" if name == "data" else name: value.hex() if name == "data" else value
        for name, value in field_values(row).items()
    }


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two texts (or lists of ids) first differ, and what each has from there on."""

    at: int
    given: str
    returned: str


@dataclass(frozen=True, repr=False)
class TokenReport(Displayed):
    """A text and its tokens.

    source: "text", "chat" (`text` is what the template made of the message) or "ids" (`text` is what
        they decode to, and the tokens have no spans).
    bos: whether special tokens were asked for or forbidden, None when neither.
    decoded: what the tokens decode to, those that the tokenizer put there itself left out.
    difference: where that and `text` first differ, or, for ids, the ids and what their text is
        encoded to; None when they are equal.
    exact: False where spans and the bytes of unknown tokens are the tokenizer's own estimate.
    """

    model: str
    text: str
    rows: tuple[TokenRow, ...]
    decoded: str
    difference: Difference | None
    source: str = "text"
    bos: bool | None = None
    line: int | None = None
    byte_level: bool = False
    exact: bool = True

    @property
    def characters(self) -> int:
        return len(self.text)

    @property
    def bytes(self) -> int:
        """The length of the text in UTF-8."""
        return len(self.text.encode("utf-8", "replace"))

    @property
    def words(self) -> int:
        """How many words white space makes of the text."""
        return len(self.text.split())

    @property
    def spelling(self) -> int:
        """How many tokens stand for some of the text."""
        return sum(not row.inserted for row in self.rows)

    @property
    def tokens_per_character(self) -> float | None:
        return self.spelling / self.characters if self.characters else None

    @property
    def tokens_per_word(self) -> float | None:
        return self.spelling / self.words if self.words else None

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(row.token_id for row in self.rows)

    def counts(self) -> dict[str, Any]:
        """The numbers under the table; the ratios leave tokens out that stand for no text."""
        kinds = Counter(row.kind for row in self.rows)
        sizes = ("characters", "bytes", "words", "tokens_per_character", "tokens_per_word")
        return {
            "tokens": len(self.rows),
            **field_values(self, sizes),
            "kinds": {kind: kinds[kind] for kind in KINDS if kinds[kind]},
        }

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "command": "tokenize",
            "model": self.model,
            "source": self.source,
            **({"line": self.line} if self.line is not None else {}),
            "text": self.text,
            "bos": self.bos,
            "counts": self.counts(),
            "round_trip": {
                "same": self.difference is None,
                "decoded": self.decoded,
                "difference": field_values(self.difference) if self.difference else None,
            },
            "exact": self.exact,
            "tokens": self.flat(),
        }

    def flat(self) -> list[dict[str, Any]]:
        """One record a token."""
        return [row.as_dict() for row in self.rows]


@dataclass(frozen=True, repr=False)
class TokenReports(Displayed):
    """Several texts, or one under several tokenizers or with and without its special tokens.

    by: what tells them apart: "line", "model" or "bos"; reports of several lines come line by line.
    variants: the names of what is compared, in order.
    """

    by: str
    variants: tuple[str, ...]
    reports: tuple[TokenReport, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "command": "tokenize",
            "compare": self.by,
            "variants": list(self.variants),
            "texts": [report.as_dict() for report in self.reports],
        }

    def flat(self) -> list[dict[str, Any]]:
        """One record a token, told apart by its line and its variant."""
        return [
            {
                **({"line": report.line} if report.line is not None else {}),
                **({self.by: name} if self.by != "line" else {}),
                **row,
            }
            for name, report in self.named()
            for row in report.flat()
        ]

    def named(self) -> list[tuple[str, TokenReport]]:
        """Each report with the name of its variant."""
        return [
            (self.variants[number % len(self.variants)], report)
            for number, report in enumerate(self.reports)
        ]


@dataclass(frozen=True, repr=False)
class VocabularyReport(Displayed):
    """Tokens of a vocabulary of `size`, those asked for; `scripts` counts all of it."""

    model: str
    size: int
    rows: tuple[VocabularyRow, ...]
    scripts: dict[str, int]
    byte_level: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "command": "tokenize",
            **field_values(self, ("model", "size", "scripts")),
            "tokens": self.flat(),
        }

    def flat(self) -> list[dict[str, Any]]:
        """One record a token."""
        return [row.as_dict() for row in self.rows]
