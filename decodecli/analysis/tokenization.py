"""A text → its tokens, with the bytes that each stands for and the characters that it comes from.

The tokenizers library's offsets are not enough for that: a prefix space shares its characters with
the token after it, white space may be trimmed off, and an unknown token hides what it swallowed. So
the library's own steps (added tokens, normaliser, pre-tokenizer, model) are gone through one by one,
which keeps the slice of the normalised text under every token; the ids must come out as they do in
one go, or the library's offsets are used after all.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from decodecli.analysis.tokenizer import Tokenizer, find_tokenizer
from decodecli.byte_level import ALPHABET
from decodecli.errors import PromptError, UsageError
from decodecli.models.time_limit import tokenized
from decodecli.records.tokens import Difference, TokenReport, TokenRow

Span = tuple[int, int]
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PREFIXES = ("▁", " ", "Ġ")  # what normalisers and pre-tokenizers put before a word
_SHOWN = 24  # characters of a difference


@dataclass(frozen=True, slots=True)
class _Token:
    """A token before it is a row; `data` empty and no span when the tokenizer put it there itself."""

    token_id: int
    data: bytes = b""
    span: Span | None = None
    kind: str | None = None


class _Misaligned(Exception):
    """The steps did not give the ids that encoding in one go gives."""


def tokenize(
    text: str, tokenizer: Tokenizer | str = "builtin", bos: bool | None = None
) -> TokenReport:
    """The tokens of a text.

    >>> tokenize("日本の首都は").rows[1].token
    '▁'

    Args:
        tokenizer: one from `find_tokenizer`, or the name of a model.
        bos: whether the tokenizer's special tokens are added; None does as the tokenizer does. A BOS
            typed by hand is not added a second time.

    Raises:
        PromptError: the text holds a lone surrogate, or is empty and there is no BOS token.
        LoadError: the tokenizer fails on the text, or does not come to an end.
    """
    tokenizer = find_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the text is not Unicode text (a lone surrogate at {error.start})", "leave it out"
        ) from None
    special = bos is not False
    tokens, exact = tokenized(tokenizer.name, text, lambda: _encode(tokenizer, text, special))
    tokens = _with_bos(tokenizer, text, tokens, bos)
    if not tokens and not text:
        reason = "--no-bos was given" if tokenizer.bos_id is not None else "it has no BOS token"
        raise PromptError(
            f"the text is empty, and {tokenizer.name} makes no token of it: {reason}",
            "give a text of at least one character",
        )
    decoded = tokenizer.decode([t.token_id for t in tokens if t.data or t.kind != "special"])
    return TokenReport(
        model=tokenizer.name,
        text=text,
        rows=_rows(tokenizer, tokens),
        decoded=decoded,
        difference=_difference(text, decoded),
        bos=bos,
        byte_level=tokenizer.kind == "byte_level",
        exact=exact,
    )


def tokenize_chat(messages: list[dict[str, Any]], tokenizer: Tokenizer) -> TokenReport:
    """The tokens of messages under the chat template, which says itself what special tokens it has.

    Raises:
        LoadError: there is no template, or it does not work with these messages.
    """
    report = tokenize(tokenizer.chat_template.render(messages), tokenizer, bos=False)
    return replace(report, source="chat", bos=None)


def decode_ids(ids: Sequence[int], tokenizer: Tokenizer) -> TokenReport:
    """The tokens of ids; their text is what they decode to, special tokens spelt out, save a BOS in
    front.

    Raises:
        UsageError: an id that is not in the vocabulary.
    """
    for number in ids:
        if number < 0 or number >= 2**31 or tokenizer.piece(number) is None:
            raise UsageError(
                f"--ids {number} is not in the vocabulary of {tokenizer.name}",
                f"its ids go from 0 to {tokenizer.size - 1}",
            )
    # A BOS in front is the tokenizer's own, as it is in the tokens of a text.
    begins = len(ids) > 1 and ids[0] == tokenizer.bos_id
    said = list(ids[1:] if begins else ids)
    tokens = [_Token(number, vocabulary_bytes(tokenizer, number)) for number in said]
    if begins:
        tokens = [_Token(ids[0], kind="special"), *tokens]
    text = tokenizer.decode(said)
    back = [token.token_id for token in _encode(tokenizer, text, False)[0]]
    return TokenReport(
        model=tokenizer.name,
        text=text,
        rows=_rows(tokenizer, tokens),
        decoded=text,
        difference=_id_difference(said, back, int(begins)),
        source="ids",
        byte_level=tokenizer.kind == "byte_level",
    )


def parse_ids(written: str) -> list[int]:
    """`1,415,5565` (or with spaces, or in brackets) → ids.

    Raises:
        UsageError: a word that is no number, or none at all.
    """
    words = [word for word in re.split(r"[\s,]+", written.strip().strip("[]")) if word]
    for word in words:
        if not re.fullmatch(r"-?[0-9]{1,12}", word, re.ASCII):
            raise UsageError(
                f"--ids must be numbers, got {word[:40]!r}", "for example --ids 1,415,5565"
            )
    if not words:
        raise UsageError("--ids is empty", "for example --ids 1,415,5565")
    return [int(word) for word in words]


def vocabulary_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The bytes that a token of the vocabulary stands for, wherever it stands; those of its spelling
    for an added token."""
    piece = tokenizer.piece(token_id) or ""
    if token_id in tokenizer.special or token_id in tokenizer.added:
        return piece.encode("utf-8", "replace")
    if tokenizer.kind == "byte_fallback" and (byte := _BYTE_TOKEN.fullmatch(piece)):
        return bytes([int(byte[1], 16)])
    prefix, suffix = tokenizer.affixes
    if prefix and piece.startswith(prefix) and len(piece) > len(prefix):
        piece = piece[len(prefix) :]
    if suffix and piece.endswith(suffix):
        piece = piece[: -len(suffix)] + " "
    return _spelt(tokenizer, piece)


def _spelt(tokenizer: Tokenizer, written: str) -> bytes:
    """The bytes of normalised text as the vocabulary spells it (`▁` and `Ġ` for a space)."""
    if tokenizer.kind == "byte_level":
        try:
            return bytes(ALPHABET[character] for character in written)
        except KeyError:
            return written.encode("utf-8", "replace")
    if tokenizer.writes_spaces:
        written = written.replace("▁", " ")
    return written.encode("utf-8", "replace")


# ---- encoding


def _encode(tokenizer: Tokenizer, text: str, special: bool) -> tuple[list[_Token], bool]:
    """The tokens of a text, and whether their bytes and spans are known for certain."""
    if tokenizer.backend is None:
        return _encode_slowly(tokenizer, text, special), False
    if tokenizer.whole is not None:
        encoding = tokenizer.whole(text, add_special_tokens=special).encodings[0]
    else:
        # In a batch: alone, the library would not let other threads run meanwhile.
        encoding = tokenizer.backend.encode_batch([text], add_special_tokens=special)[0]
    mask = encoding.special_tokens_mask
    given = list(zip(encoding.ids, encoding.offsets, strict=True))
    body = [pair for pair, inserted in zip(given, mask, strict=True) if not inserted]
    try:
        found, exact = _Steps(tokenizer, text, _untrimmed(tokenizer, text, body)).tokens(), True
    except Exception:  # also whatever the library refuses to do step by step
        found, exact = _by_offsets(tokenizer, text, body), False
    rest = iter(found)
    tokens = [
        _Token(number, kind="special") if inserted else next(rest)
        for number, inserted in zip(encoding.ids, mask, strict=True)
    ]
    return tokens, exact


def _untrimmed(
    tokenizer: Tokenizer, text: str, body: list[tuple[int, Span]]
) -> list[tuple[int, Span]]:
    """The ids and spans without the post-processing that takes white space off spans."""
    backend = tokenizer.backend
    trims = backend.post_processor
    if "trim_offsets=True" not in repr(trims):
        return body
    try:
        backend.post_processor = None
        encoding = backend.encode(text, add_special_tokens=False)
    finally:
        backend.post_processor = trims
    return list(zip(encoding.ids, encoding.offsets, strict=True))


def _with_bos(
    tokenizer: Tokenizer, text: str, tokens: list[_Token], bos: bool | None
) -> list[_Token]:
    """Add BOS where it was asked for and the tokenizer does not, take it away where it would stand
    twice; an empty text is BOS alone."""
    first, typed = tokenizer.bos_id, tokenizer.roles.get("bos_token")
    if first is None:
        return tokens
    ids = [token.token_id for token in tokens[:2]]
    if (bos and ids[:1] != [first]) or (bos is not False and not tokens):
        return [_Token(first, kind="special"), *tokens]
    if typed and text.startswith(typed) and ids == [first, first] and not tokens[0].data:
        return tokens[1:]
    return tokens


class _Steps:
    """The way from text to tokens step by step, for tokens whose ids are known from encoding in one
    go: `body` holds these with the library's spans."""

    def __init__(self, tokenizer: Tokenizer, text: str, body: list[tuple[int, Span]]) -> None:
        self._tokenizer, self._text, self._body = tokenizer, text, body
        self._added: dict[int, Any] = tokenizer.backend.get_added_tokens_decoder()
        self._unknown = tokenizer.unknown_id
        self._typed = [self._is_typed(number, span) for number, span in body]
        self._slices: list[str] = []  # the normalised text under added tokens found in it

    def _is_typed(self, number: int, span: Span) -> bool:
        """Whether a token is an added one found in the text, and not the model's."""
        if number not in self._added:
            return False
        if number != self._unknown:
            return True
        under: str = self._text[span[0] : span[1]]
        content: str = self._added[number].content
        return under.strip() == content

    def tokens(self) -> list[_Token]:
        """Raises `_Misaligned` when the ids do not come out the same."""
        words, characters = self._words(), self._characters()
        pieces = self._pieces(words, characters)
        self._cut_out = iter(self._slices)
        found: list[_Token] = []
        for (number, span), typed in zip(self._body, self._typed, strict=True):
            if typed:
                found.append(self._added_token(number, span))
                continue
            token = next(pieces, None)
            if token is None or token.token_id != number:
                raise _Misaligned
            found.append(token)
        if next(pieces, None) is not None:
            raise _Misaligned
        return found

    def _added_token(self, number: int, span: Span) -> _Token:
        token = self._added[number]
        if token.normalized:
            data = self._as_text(next(self._cut_out))
        else:
            data = self._text[slice(*span)].encode()
        return _Token(number, data, span, "special" if token.special else "added")

    def _as_text(self, normalised: str) -> bytes:
        """Bytes of normalised text that no pre-tokenizer has been over."""
        spaces = self._tokenizer.kind != "byte_level" and self._tokenizer.writes_spaces
        return (normalised.replace("▁", " ") if spaces else normalised).encode("utf-8", "replace")

    def _normalised(self, content: str) -> str:
        normalizer = self._tokenizer.backend.normalizer
        return str(normalizer.normalize_str(content)) if normalizer is not None else content

    def _prepared(self) -> Any:
        """The text cut at added tokens (which are left out), normalised and cut into words."""
        from tokenizers import PreTokenizedString

        self._slices = []
        backend = self._tokenizer.backend
        prepared = PreTokenizedString(self._text)
        gaps, inside = self._gaps()
        if not gaps:
            return None
        prepared.split(lambda _, whole: [whole[start:end] for start, end in gaps])
        if backend.normalizer is not None:
            prepared.normalize(backend.normalizer.normalize)
        if any(inside):
            prepared.split(lambda index, part: self._cut(part, inside[index]))
        if backend.pre_tokenizer is not None:
            backend.pre_tokenizer.pre_tokenize(prepared)
        return prepared

    def _gaps(self) -> tuple[list[Span], list[list[Any]]]:
        """The parts of the text between added tokens that are found before normalising, and in each
        those that are found after."""
        gaps: list[Span] = []
        inside: list[list[Any]] = []
        start, held = 0, []
        for (number, span), typed in zip(self._body, self._typed, strict=True):
            if typed and self._added[number].normalized:
                held.append(self._added[number])
            elif typed:
                if span[0] > start:
                    gaps.append((start, span[0]))
                    inside.append(held)
                    held = []
                start = span[1]
        if len(self._text) > start:
            gaps.append((start, len(self._text)))
            inside.append(held)
        return gaps, inside

    def _cut(self, part: Any, tokens: list[Any]) -> list[Any]:
        """A normalised part without the added tokens in it."""
        normalised, start, kept = part.normalized, 0, []
        for token in tokens:
            first, last = self._found(normalised, token, start)
            self._slices.append(normalised[first:last])
            if first > start:
                kept.append(part[start:first])
            start = last
        if len(normalised) > start:
            kept.append(part[start : len(normalised)])
        return kept

    def _found(self, normalised: str, token: Any, start: int) -> Span:
        """Where an added token next stands, with the white space that it takes along."""
        content = self._normalised(token.content)
        first = normalised.find(content, start)
        last = first + len(content)
        while first >= 0 and token.single_word and _in_word(normalised, first, last):
            first = normalised.find(content, first + 1)
            last = first + len(content)
        if first < 0:
            raise _Misaligned
        while token.lstrip and first > start and normalised[first - 1].isspace():
            first -= 1
        while token.rstrip and last < len(normalised) and normalised[last].isspace():
            last += 1
        return first, last

    def _words(self) -> list[tuple[str, list[Any]]]:
        """Each word as the model reads it, with the model's tokens."""
        prepared = self._prepared()
        if prepared is None:
            return []
        prepared.tokenize(self._tokenizer.backend.model.tokenize)
        return [(word, tokens) for word, _, tokens in prepared.get_splits("original", "char")]

    def _characters(self) -> list[Span]:
        """For each character of all words in a row, the characters of the text it comes from."""
        from tokenizers import Regex

        prepared = self._prepared()
        if prepared is None:
            return []
        each = Regex(r"[\s\S]")
        prepared.split(lambda _, word: word.split(each, "isolated"))
        return [span for _, span, _ in prepared.get_splits("original", "char")]

    def _pieces(
        self, words: list[tuple[str, list[Any]]], characters: list[Span]
    ) -> Iterator[_Token]:
        if sum(len(word) for word, _ in words) != len(characters):
            raise _Misaligned
        start = 0
        for word, tokens in words:
            after = start + len(word)
            if (
                word[:1] in _PREFIXES
                and characters[start : start + 1] == characters[start + 1 : start + 2]
            ):
                place = characters[start][0]  # it was put there, and comes from nothing
                characters[start] = (place, place)
            spans = characters[start:after]
            start = after
            ends = [0, *accumulate(len(character.encode()) for character in word)]
            encoded = word.encode()
            for token in tokens:
                yield self._piece(token, encoded, ends, spans)

    def _piece(self, token: Any, word: bytes, ends: list[int], spans: list[Span]) -> _Token:
        """A token of the model: the slice of the word under it, and where that comes from."""
        start, end = token.offsets
        if not 0 <= start < end <= len(word):
            raise _Misaligned
        first, last = bisect_right(ends, start) - 1, bisect_right(ends, end - 1) - 1
        span = (spans[first][0], max(spans[last][1], spans[first][0]))
        tokenizer = self._tokenizer
        piece = tokenizer.piece(token.id) or ""
        if tokenizer.kind == "byte_fallback" and (byte := _BYTE_TOKEN.fullmatch(piece)):
            return _Token(token.id, bytes([int(byte[1], 16)]), span, "byte")
        data = _spelt(tokenizer, word[start:end].decode("utf-8", "replace"))
        return _Token(token.id, data, span, "unknown" if token.id == self._unknown else None)


def _in_word(text: str, first: int, last: int) -> bool:
    """Whether letters stand right before or behind a slice of a text."""
    return bool(re.search(r"\w\Z", text[:first][-1:]) or re.match(r"\w", text[last : last + 1]))


def _by_offsets(tokenizer: Tokenizer, text: str, body: list[tuple[int, Span]]) -> list[_Token]:
    """Tokens by their pieces and the library's offsets: an estimate."""
    unknown = tokenizer.unknown_id
    found = []
    for number, span in body:
        if number == unknown:
            found.append(_Token(number, text[slice(*span)].encode(), span, "unknown"))
        else:
            found.append(_Token(number, vocabulary_bytes(tokenizer, number), span))
    return found


def _encode_slowly(tokenizer: Tokenizer, text: str, special: bool) -> list[_Token]:
    """Tokens of a tokenizer written in Python, which tells ids alone: spans are looked for."""
    ids: list[int] = tokenizer.whole.encode(text, add_special_tokens=special)
    body: list[int] = tokenizer.whole.encode(text, add_special_tokens=False)
    before = next((n for n in range(len(ids) - len(body) + 1) if ids[n : n + len(body)] == body), 0)
    found, cursor = [], 0
    for place, number in enumerate(ids):
        if not before <= place < before + len(body):
            found.append(_Token(number, kind="special"))
            continue
        data = vocabulary_bytes(tokenizer, number)
        shown = data.decode("utf-8", "ignore").strip()
        start = text.find(shown, cursor) if shown else cursor
        if number == tokenizer.unknown_id and start < 0:
            found.append(_Token(number, kind="unknown"))
            continue
        if start < 0:
            found.append(_Token(number, data))
            continue
        cursor = start + len(shown)
        found.append(_Token(number, data, (start, cursor)))
    return found


# ---- rows


def _rows(tokenizer: Tokenizer, tokens: list[_Token]) -> tuple[TokenRow, ...]:
    """Rows with the text of each: of a character in several tokens, the last has all of it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rows = []
    for place, token in enumerate(tokens):
        rows.append(
            TokenRow(
                position=place,
                token_id=token.token_id,
                token=tokenizer.piece(token.token_id) or "",
                text=decoder.decode(token.data, final=place == len(tokens) - 1),
                data=token.data,
                kind=token.kind or kind_of(tokenizer, token.token_id, token.data),
                span=token.span,
            )
        )
    return tuple(rows)


def kind_of(tokenizer: Tokenizer, token_id: int, data: bytes) -> str:
    """What kind of token it is: byte tokens stand for bytes that are no whole characters, or are one
    of the 256 that a vocabulary falls back on."""
    if token_id in tokenizer.special:
        return "special"
    if token_id in tokenizer.added:
        return "added"
    if tokenizer.kind == "byte_fallback" and _BYTE_TOKEN.fullmatch(tokenizer.piece(token_id) or ""):
        return "byte"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "byte"
    return "normal"


def _difference(given: str, returned: str) -> Difference | None:
    if given == returned:
        return None
    at = _first_difference(given, returned)
    return Difference(at, given[at : at + _SHOWN], returned[at : at + _SHOWN])


def _id_difference(given: list[int], returned: list[int], start: int) -> Difference | None:
    """Where ids that begin at position `start` and the ids of their text part."""
    if given == returned:
        return None
    at = _first_difference(given, returned)
    shown = [",".join(map(str, ids[at : at + 6])) for ids in (given, returned)]
    return Difference(start + at, *shown)


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    same = 0
    for ours, theirs in zip(one, other, strict=False):
        if ours != theirs:
            break
        same += 1
    return same
