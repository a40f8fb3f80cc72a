"""The words, rows and expressions of `embed`, in groups or not, and their token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decodecli.analysis.vocabulary import script_of
from decodecli.errors import PromptError, UsageError
from decodecli.models.time_limit import tokenized
from decodecli.models.tokenizer import Tokenizer
from decodecli.text_files import parse_toml

_SIGNS = {"+": 1, "-": -1, "−": -1}
# Scripts that are written without spaces between words.
_UNSPACED = {
    "Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan",
}  # fmt: skip
_GROUPS_HINT = 'write lines like animals = ["cat", "dog"]'
_EXPRESSION_HINT = "as in: king - man + woman"


@dataclass(frozen=True)
class Item:
    """One thing whose vector is wanted.

    terms: its words, each to be added (1) or taken away (−1). row: the matrix row it is, if one.
    """

    name: str
    terms: tuple[tuple[int, str], ...] = ()
    row: int | None = None
    group: str | None = None

    @property
    def kind(self) -> str:
        if self.row is not None:
            return "row"
        return "word" if len(self.terms) == 1 else "expression"


def items_from(
    words: Sequence[str] = (),
    rows: Sequence[int] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Item, ...]:
    """Everything that is wanted, in order: grouped words, words, rows.

    Raises:
        UsageError: an empty word, one given twice, a malformed expression.
    """
    items = [
        parse_word(word, group) for group, members in (groups or {}).items() for word in members
    ]
    items += [parse_word(word) for word in join_signs(words)]
    items += [Item(name=f"#{row}", row=row) for row in rows]
    by_name: dict[str, Item] = {}
    for item in items:
        other = by_name.setdefault(item.name, item)
        if other is not item:
            places = [f" in {it.group}" for it in (other, item) if it.group is not None]
            where = " and".join(dict.fromkeys(places))
            raise UsageError(f"{item.name!r} is given twice{where}", "give each word once")
    return tuple(items)


def join_signs(words: Sequence[str]) -> list[str]:
    """Words with `king`, `-`, `man` joined to one: an expression that was typed without quotes."""
    joined: list[str] = []
    for word in words:
        after_sign = joined and joined[-1].endswith(tuple(f" {sign}" for sign in _SIGNS))
        if joined and (word in _SIGNS or after_sign):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def parse_word(text: str, group: str | None = None) -> Item:
    """A word, or an expression of words with + and - between spaces.

    Raises:
        UsageError: it is empty, or a sign has no word on one of its sides.
        PromptError: it is not UTF-8.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"the word {text!a} is not UTF-8", "type it in a terminal set to UTF-8")
    if not text.strip():
        where = f" in {group}" if group is not None else ""
        raise UsageError(f"an empty word was given{where}", "give at least one letter")
    parts = text.split()
    if not any(part in _SIGNS for part in parts):
        return Item(text, ((1, text),), group=group)
    terms: list[tuple[int, str]] = []
    sign, words = 1, list[str]()
    for part in [*parts, "+"]:
        if part not in _SIGNS:
            words.append(part)
            continue
        if not words:
            raise UsageError(f"{text!r} is no expression: a sign lacks a word", _EXPRESSION_HINT)
        terms.append((sign, " ".join(words)))
        sign, words = _SIGNS[part], []
    return Item(" ".join(parts), tuple(terms), group=group)


def read_groups(text: str, where: str) -> dict[str, list[str]]:
    """Groups of words from TOML: a list of strings for each name.

    Raises:
        UsageError: it is not TOML, something else than lists of strings, or a group is empty.
    """
    groups = parse_toml(text, where, _GROUPS_HINT)
    if not groups:
        raise UsageError(f"{where} has no groups", _GROUPS_HINT)
    for name, words in groups.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UsageError(f"{name} in {where} is not a list of words", _GROUPS_HINT)
        if not words:
            raise UsageError(f"the group {name} in {where} is empty", _GROUPS_HINT)
    return groups


def written_with_spaces(word: str) -> bool:
    """Whether a word of this script has a space before it in running text: true for Latin or
    Cyrillic letters and digits, false for Han, kana or Thai, and for punctuation."""
    first = word[:1]
    return first.isalnum() and script_of(first) not in _UNSPACED


def word_ids(tokenizer: Tokenizer, word: str, space: bool | None = None) -> tuple[int, ...]:
    """A word's token ids as it has them inside a text.

    The word is encoded after a line break, whose tokens are taken off again, because many tokenizers
    put a space of their own before the first word of a text.

    Args:
        tokenizer: one with a backend.
        space: whether a space stands before the word; None: where its script is written with spaces,
            or where one was typed.

    Raises:
        UsageError: nothing but unknown tokens stands for it.
    """
    token_id = tokenizer.id_of(word)
    if token_id is not None and token_id in tokenizer.special | tokenizer.added:
        return (token_id,)
    bare = word.removeprefix(" ")
    spaced = bare != word or written_with_spaces(bare) if space is None else space
    text = " " + bare if spaced else bare
    texts, encode = ["\n", f"\n{text}", text], tokenizer.backend.encode_batch
    encodings = tokenized("this model", text, lambda: encode(texts, add_special_tokens=False))
    line_break, after_break, ids = (encoding.ids for encoding in encodings)
    if after_break[: len(line_break)] == line_break:
        ids = after_break[len(line_break) :]
    if all(token_id == tokenizer.unknown_id for token_id in ids):
        raise UsageError(
            f"{word!r} is not in the vocabulary: only the unknown token stands for it",
            "choose a word that the model's tokenizer can spell",
        )
    return tuple(ids)
