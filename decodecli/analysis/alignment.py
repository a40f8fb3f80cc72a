"""Tokens aligned with their text: the bytes that each stands for and the characters it comes from.

The offsets of the tokenizers library are not enough for that: a prefix space shares its characters with
the token after it, white space may be trimmed off, and an unknown token hides what it swallowed. So the
normalised text is recorded on its way into the model, word by word and character by character, and the
model's tokens are laid over it. Their ids must be those of encoding in one go; where they are not, the
library's offsets are used after all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from decodecli.models.tokenizer import BYTE_TOKEN, Tokenizer

Span = tuple[int, int]
_PREFIXES = ("▁", " ", "Ġ")  # what normalisers and pre-tokenizers put before a word


@dataclass(frozen=True, slots=True)
class AlignedToken:
    """A token of a text; `data` empty and no span when the tokenizer inserted it.

    kind: as in `TokenRow`; None where the vocabulary decides it.
    """

    token_id: int
    data: bytes = b""
    span: Span | None = None
    kind: str | None = None


def encode_aligned(
    tokenizer: Tokenizer, text: str, special: bool
) -> tuple[list[AlignedToken], bool]:
    """The tokens of a text, and whether their bytes and spans are exact.

    Args:
        special: whether the tokenizer inserts its special tokens.
    """
    if tokenizer.backend is None:
        return _encode_slow(tokenizer, text, special), False
    if tokenizer.hf_tokenizer is not None:
        encoding = tokenizer.hf_tokenizer(text, add_special_tokens=special).encodings[0]
    else:
        # In a batch: alone, the library would not let other threads run meanwhile.
        encoding = tokenizer.backend.encode_batch([text], add_special_tokens=special)[0]
    rows = list(zip(encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True))
    body = [(token_id, span) for token_id, span, inserted in rows if not inserted]
    try:
        aligned = list(_aligned(tokenizer, text))
    except Exception:  # whatever the library refuses to do step by step
        aligned = []
    exact = [token.token_id for token in aligned] == [token_id for token_id, _ in body]
    if not exact:
        aligned = _by_offsets(tokenizer, text, body)
    rest = iter(aligned)
    tokens = [
        AlignedToken(token_id, kind="special") if inserted else next(rest)
        for token_id, _, inserted in rows
    ]
    return tokens, exact


class _Recorder:
    """A last pre-tokenizer that notes the words with their spans, and the span of each character."""

    words: Any = ()  # (word, span, tokens): tokens are given for an added token alone
    characters: Any = ()

    def pre_tokenize(self, pretokenized: Any) -> None:
        from tokenizers import Regex

        self.words = pretokenized.get_splits("original", "char")
        each = Regex(r"[\s\S]")
        pretokenized.split(lambda _, word: word.split(each, "isolated"))
        self.characters = pretokenized.get_splits("original", "char")


def _aligned(tokenizer: Tokenizer, text: str) -> Iterator[AlignedToken]:
    """The tokens of a text, without those that the tokenizer inserts."""
    import tokenizers
    from tokenizers.pre_tokenizers import PreTokenizer, Sequence

    # A tokenizer of the same parts around an empty model: it finds the added tokens and the words.
    backend, recorder = tokenizer.backend, _Recorder()
    shell = tokenizers.Tokenizer(tokenizers.models.BPE())
    if backend.normalizer is not None:
        shell.normalizer = backend.normalizer
    parts = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    shell.pre_tokenizer = Sequence([*parts, PreTokenizer.custom(recorder)])
    shell.encode_special_tokens = backend.encode_special_tokens
    shell.add_tokens(list(backend.get_added_tokens_decoder().values()))
    added = shell.get_added_tokens_decoder()
    shell.encode_batch([text], add_special_tokens=False)

    spans = [span for _, span, tokens in recorder.characters if not tokens]
    start = 0
    for word, span, tokens in recorder.words:
        if tokens:
            token = added[tokens[0].id]
            plain = not token.normalized or tokenizer.kind == "byte_level"
            data = word.encode() if plain else tokenizer.spelled_bytes(word)
            kind = "special" if token.special else "added"
            yield AlignedToken(backend.token_to_id(token.content), data, span, kind)
        else:
            end = start + len(word)
            if word[:1] in _PREFIXES and spans[start : start + 1] == spans[start + 1 : start + 2]:
                spans[start] = (spans[start][0], spans[start][0])  # a prefix comes from nothing
            yield from _word_tokens(tokenizer, word, spans[start:end])
            start = end


def _word_tokens(tokenizer: Tokenizer, word: str, spans: list[Span]) -> Iterator[AlignedToken]:
    """The model's tokens of a word: the slice of it under each, and where that comes from."""
    encoded = word.encode()
    ends = [0, *accumulate(len(character.encode()) for character in word)]
    for token in tokenizer.backend.model.tokenize(word):
        start, end = token.offsets  # in bytes
        first, last = bisect_right(ends, start) - 1, bisect_right(ends, end - 1) - 1
        span = (spans[first][0], max(spans[last][1], spans[first][0]))
        piece = tokenizer.piece(token.id) or ""
        if tokenizer.kind == "byte_fallback" and (byte := BYTE_TOKEN.fullmatch(piece)):
            yield AlignedToken(token.id, bytes([int(byte[1], 16)]), span, "byte")
            continue
        data = tokenizer.spelled_bytes(encoded[start:end].decode("utf-8", "replace"))
        kind = "unknown" if token.id == tokenizer.unknown_id else None
        yield AlignedToken(token.id, data, span, kind)


def _by_offsets(
    tokenizer: Tokenizer, text: str, body: list[tuple[int, Span]]
) -> list[AlignedToken]:
    """Tokens by their pieces and the library's offsets: an estimate."""
    return [
        AlignedToken(token_id, text[slice(*span)].encode(), span, "unknown")
        if token_id == tokenizer.unknown_id
        else AlignedToken(token_id, tokenizer.token_bytes(token_id), span)
        for token_id, span in body
    ]


def _encode_slow(tokenizer: Tokenizer, text: str, special: bool) -> list[AlignedToken]:
    """Tokens of a tokenizer written in Python, which gives ids alone: their spans are searched for."""
    encode = tokenizer.hf_tokenizer.encode
    ids: list[int] = encode(text, add_special_tokens=special)
    body: list[int] = encode(text, add_special_tokens=False)
    starts = range(len(ids) - len(body) + 1)
    before = next((n for n in starts if ids[n : n + len(body)] == body), 0)
    tokens, cursor = [], 0
    for position, token_id in enumerate(ids):
        if not before <= position < before + len(body):
            tokens.append(AlignedToken(token_id, kind="special"))
            continue
        data = tokenizer.token_bytes(token_id)
        visible = data.decode("utf-8", "ignore").strip()
        start = text.find(visible, cursor) if visible else cursor
        if start >= 0:
            cursor = start + len(visible)
            tokens.append(AlignedToken(token_id, data, (start, cursor)))
        elif token_id == tokenizer.unknown_id:
            tokens.append(AlignedToken(token_id, kind="unknown"))
        else:
            tokens.append(AlignedToken(token_id, data))
    return tokens
