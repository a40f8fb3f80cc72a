"""What `embed` is asked for: words, rows and expressions, in groups or not, and their token ids."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from decodecli.errors import LoadError, PromptError, UsageError
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.time_limit import tokenized
from decodecli.text_files import parse_toml

_SIGNS = {"+": 1, "-": -1, "−": -1}
# Scripts that are written without spaces between words, by the first word of their letters' names.
_UNSPACED = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "BOPOMOFO",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
)
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
    """Everything that was asked for, in order: grouped words, words, rows.

    Raises:
        UsageError: an empty word, one given twice, an expression that is none.
    """
    found = [
        parse_word(word, group) for group, members in (groups or {}).items() for word in members
    ]
    found += [parse_word(word) for word in join_signs(words)]
    found += [Item(name=f"#{row}", row=row) for row in rows]
    seen: dict[str, Item] = {}
    for item in found:
        other = seen.setdefault(item.name, item)
        if other is not item:
            place = [f" in {it.group}" for it in (other, item) if it.group is not None]
            where = " and".join(dict.fromkeys(place))
            raise UsageError(f"{item.name!r} is given twice{where}", "give each word once")
    return tuple(found)


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
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
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
        UsageError: it is no TOML, something else than lists of strings, or a group is empty.
    """
    found = parse_toml(text, where, _GROUPS_HINT)
    if not found:
        raise UsageError(f"{where} has no groups", _GROUPS_HINT)
    for name, words in found.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UsageError(f"{name} in {where} is not a list of words", _GROUPS_HINT)
        if not words:
            raise UsageError(f"the group {name} in {where} is empty", _GROUPS_HINT)
    return found


def written_with_spaces(word: str) -> bool:
    """Whether a word of this script has a space before it in running text: true for Latin or
    Cyrillic letters and digits, false for Han, kana or Thai, and for punctuation."""
    first = word[:1]
    return first.isalnum() and not unicodedata.name(first, "").startswith(_UNSPACED)


class Vocabulary:
    """A checkpoint's tokenizer, read without transformers where its folder has a tokenizer.json.

    Raises:
        LoadError: there is no tokenizer, or it cannot be read.
    """

    def __init__(self, checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> None:
        path = checkpoint.folder / "tokenizer.json"
        self._tokenizer: Any = (
            _fast(path, checkpoint.name) if path.is_file() else _any(checkpoint, trust_remote_code)
        )

    @property
    def size(self) -> int:
        """How many entries it has, added tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def byte_level(self) -> bool:
        """Whether pieces are spelt in GPT-2's byte alphabet."""
        return "ByteLevel" in repr(self._tokenizer.decoder)

    def piece(self, token_id: int) -> str | None:
        """The vocabulary's piece, None for an id that it does not have."""
        found = self._tokenizer.id_to_token(token_id)
        return found if isinstance(found, str) else None

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids, no special tokens added."""
        found = tokenized(
            "this model",
            text,
            lambda: self._tokenizer.encode_batch([text], add_special_tokens=False),
        )
        return tuple(found[0].ids)

    def ids(self, word: str, space: bool | None = None) -> tuple[int, ...]:
        """A word's tokens as they stand inside a text.

        The word is encoded after a line break, whose tokens are taken off again, because many
        tokenizers put a space of their own before the first word of a text.

        Args:
            space: whether a space stands before the word; None: where its script is written with
                spaces, or where one was typed.

        Raises:
            UsageError: nothing but unknown tokens stands for it.
        """
        if word in self._added:
            return (self._added[word],)
        bare = word.removeprefix(" ")
        spaced = bare != word or written_with_spaces(bare) if space is None else space
        text = " " + bare if spaced else bare
        before, whole = self.encode("\n"), self.encode("\n" + text)
        same = whole[: len(before)] == before
        found = whole[len(before) :] if same else self.encode(text)
        if not found or all(token_id in self._unknown for token_id in found):
            raise UsageError(
                f"{word!r} is not in the vocabulary: only the unknown token stands for it",
                "choose a word that the model's tokenizer can spell",
            )
        return found

    def has_unknown(self, ids: Sequence[int]) -> bool:
        """Whether the unknown token is among these."""
        return any(token_id in self._unknown for token_id in ids)

    @cached_property
    def _added(self) -> dict[str, int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: token_id for token_id, token in added.items()}

    @cached_property
    def _unknown(self) -> frozenset[int]:
        model = self._tokenizer.model
        name = getattr(model, "unk_token", None)
        found = {self._tokenizer.token_to_id(name)} if isinstance(name, str) else set()
        if place := re.match(r"Unigram\(unk_id=(\d+)", repr(model)):  # it has no attribute
            found = {int(place[1])}
        return frozenset(token_id for token_id in found if token_id is not None)


def _fast(path: Path, name: str) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise LoadError(
            f"{path} cannot be read: {str(error)[:80]}",
            f"copy the tokenizer files of {name} into the folder again",
        ) from error
    found.no_truncation()
    found.no_padding()
    return found


def _any(checkpoint: Checkpoint, trust_remote_code: bool) -> Any:
    """Through transformers, which makes a fast tokenizer of a SentencePiece model."""
    from decodecli.analysis.tokenizer import find_tokenizer

    found = find_tokenizer(str(checkpoint.folder), trust_remote_code=trust_remote_code).backend
    if found is None:
        raise LoadError(
            f"the tokenizer of {checkpoint.name} exists only as Python code",
            "embed needs one that save_pretrained can write as tokenizer.json",
        )
    return found
