"""A text, a conversation or ids → a `TokenReport`: each token with its bytes and its characters.

The offsets of the tokenizers library are not enough for that: a prefix space shares its characters with
the token after it, white space may be trimmed off, and an unknown token hides what it swallowed. So the
normalised text is recorded on its way into the model, word by word and character by character, and the
model's tokens are laid over it. Their ids must be those of encoding in one go; where they are not, the
library's offsets are used after all.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

from decodecli.errors import PromptError, UsageError
from decodecli.models.chat_template import ChatTemplate, encode_between, split_special
from decodecli.models.time_limit import tokenized
from decodecli.models.tokenizer import BYTE_TOKEN, Tokenizer, find_tokenizer
from decodecli.records.tokens import Difference, TokenReport, TokenRow

_EXCERPT, _EXCERPT_IDS = 24, 6  # characters and ids of a difference
_PREFIXES = ("▁", " ", "Ġ")  # what normalisers and pre-tokenizers put before a word


@dataclass(frozen=True, slots=True)
class AlignedToken:
    """A token of a text; `data` empty and no span when the tokenizer inserted it.

    kind: as in `TokenRow`; None where the vocabulary decides it.
    """

    token_id: int
    data: bytes = b""
    span: tuple[int, int] | None = None
    kind: str | None = None


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
    _check_unicode(text)
    tokens, exact = tokenized(
        tokenizer.name, text, lambda: _encode(tokenizer, text, special=bos is not False)
    )
    bos_id = tokenizer.bos_id
    if bos_id is not None:
        ids = [token.token_id for token in tokens[:2]]
        typed = text.startswith(tokenizer.roles["bos_token"])
        if (bos and ids[:1] != [bos_id]) or (bos is not False and not tokens):
            tokens = [AlignedToken(bos_id, kind="special"), *tokens]
        elif typed and ids == [bos_id, bos_id] and not tokens[0].data:
            tokens = tokens[1:]
    if not tokens and not text:
        reason = "--no-bos was given" if bos_id is not None else "it has no BOS token"
        raise PromptError(
            f"the text is empty, and {tokenizer.name} makes no token of it: {reason}",
            "give a text of at least one character",
        )
    decoded = tokenizer.decode([t.token_id for t in tokens if t.data or t.kind != "special"])
    difference = _difference(text, decoded, _EXCERPT)
    return _report(tokenizer, text, tokens, decoded, difference, bos=bos, exact=exact)


def tokenize_chat(
    messages: list[dict[str, Any]], tokenizer: Tokenizer, *, allow_special: bool = False
) -> TokenReport:
    """The tokens of messages under the chat template, which says itself what special tokens it has:
    those spelt in a message are text, unless `allow_special`.

    Raises:
        LoadError: there is no template, or it does not work with these messages.
        PromptError: as `tokenize`; special tokens in a message cannot be read as text.
    """
    template = ChatTemplate(tokenizer.name, tokenizer.template, tokenizer.roles)
    text = template.render(messages)
    _check_unicode(text)
    parts = None
    if not allow_special:
        parts = tokenized(
            tokenizer.name,
            text,
            lambda: split_special(tokenizer.codec, template, messages, text),
        )
    if parts is None:
        return replace(tokenize(text, tokenizer, bos=False), source="chat", bos=None)
    tokens, exact = [], True

    def encode(text: str, start: int) -> list[AlignedToken]:
        nonlocal exact
        plain, is_exact = _encode(tokenizer, text, special=False, split_special=True)
        exact = exact and is_exact
        return [
            replace(token, span=(token.span[0] + start, token.span[1] + start))
            if token.span
            else token
            for token in plain
        ]

    for start, end, token_id in parts:
        part = text[start:end]
        if token_id is not None:
            tokens.append(AlignedToken(token_id, part.encode(), (start, end), "special"))
        else:
            tokens += tokenized(
                tokenizer.name,
                part,
                partial(encode_between, tokenizer.codec, part, start, encode),
            )
    decoded = tokenizer.decode([token.token_id for token in tokens])
    difference = _difference(text, decoded, _EXCERPT)
    return _report(tokenizer, text, tokens, decoded, difference, source="chat", exact=exact)


def decode_ids(ids: Sequence[int], tokenizer: Tokenizer) -> TokenReport:
    """The tokens of ids; their text is what they decode to, special tokens spelt out, save a BOS in
    front.

    Raises:
        UsageError: an id that is not in the vocabulary.
    """
    for token_id in ids:
        if not 0 <= token_id < 2**31 or tokenizer.piece(token_id) is None:
            raise UsageError(
                f"--ids {token_id} is not in the vocabulary of {tokenizer.name}",
                f"its ids go from 0 to {tokenizer.size - 1}",
            )
    # A BOS in front is the tokenizer's own, as it is in the tokens of a text.
    has_bos = len(ids) > 1 and ids[0] == tokenizer.bos_id
    body = list(ids[1:] if has_bos else ids)
    tokens = [AlignedToken(ids[0], kind="special")] if has_bos else []
    tokens += [AlignedToken(token_id, tokenizer.token_bytes(token_id)) for token_id in body]
    text = tokenizer.decode(body)
    encoded = [token.token_id for token in _encode(tokenizer, text, special=False)[0]]
    difference = _difference(body, encoded, _EXCERPT_IDS, separator=",")
    if difference is not None:
        difference = replace(difference, at=difference.at + has_bos)
    return _report(tokenizer, text, tokens, text, difference, source="ids")


def parse_ids(typed: str) -> list[int]:
    """`1,415,5565` (or with spaces, or in brackets) → ids.

    Raises:
        UsageError: a word that is not a number, or none at all.
    """
    words = [word for word in re.split(r"[\s,]+", typed.strip().strip("[]")) if word]
    for word in words:
        if not re.fullmatch(r"-?[0-9]{1,12}", word, re.ASCII):
            raise UsageError(
                f"--ids must be numbers, got {word[:40]!r}", "for example --ids 1,415,5565"
            )
    if not words:
        raise UsageError("--ids is empty", "for example --ids 1,415,5565")
    return [int(word) for word in words]


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the text is not Unicode text (a lone surrogate at {error.start})", "leave it out"
        ) from None


def _report(
    tokenizer: Tokenizer,
    text: str,
    tokens: list[AlignedToken],
    decoded: str,
    difference: Difference | None,
    **fields: Any,
) -> TokenReport:
    # Of a character in several tokens, the last has all of it.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rows = tuple(
        TokenRow(
            position=position,
            token_id=token.token_id,
            token=tokenizer.piece(token.token_id) or "",
            text=decoder.decode(token.data, final=position == len(tokens) - 1),
            data=token.data,
            kind=token.kind or tokenizer.token_kind(token.token_id, token.data),
            span=token.span,
        )
        for position, token in enumerate(tokens)
    )
    byte_level = tokenizer.kind == "byte_level"
    return TokenReport(
        tokenizer.name, text, rows, decoded, difference, byte_level=byte_level, **fields
    )


def _difference(
    given: Sequence[Any], returned: Sequence[Any], length: int, separator: str = ""
) -> Difference | None:
    """Where two texts or lists of ids first differ; None when they are equal."""
    if given == returned:
        return None
    pairs = enumerate(zip(given, returned, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(given), len(returned)))
    excerpts = [separator.join(map(str, side[at : at + length])) for side in (given, returned)]
    return Difference(at, *excerpts)


def _encode(
    tokenizer: Tokenizer, text: str, special: bool, split_special: bool = False
) -> tuple[list[AlignedToken], bool]:
    """The tokens of a text, with those that the tokenizer inserts if `special`; and whether their
    bytes and spans are exact. Special tokens spelt in it are read as text if `split_special`."""
    if tokenizer.backend is None:
        return _encode_slow(tokenizer, text, special), False
    if tokenizer.hf_tokenizer is not None:
        # Where it is not asked for, what the tokenizer's own configuration says holds.
        split = {"split_special_tokens": True} if split_special else {}
        encoding = tokenizer.hf_tokenizer(text, add_special_tokens=special, **split).encodings[0]
    else:
        tokenizer.backend.encode_special_tokens = split_special
        # In a batch: alone, the library would not let other threads run meanwhile.
        encoding = tokenizer.backend.encode_batch([text], add_special_tokens=special)[0]
    rows = list(zip(encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True))
    body = [(token_id, span) for token_id, span, inserted in rows if not inserted]
    try:
        aligned = list(_align(tokenizer, text))
    except Exception:  # whatever the library refuses to do step by step
        aligned = []
    exact = [token.token_id for token in aligned] == [token_id for token_id, _ in body]
    if not exact:  # an estimate by the library's offsets
        aligned = [
            AlignedToken(token_id, text[slice(*span)].encode(), span, "unknown")
            if token_id == tokenizer.unknown_id
            else AlignedToken(token_id, tokenizer.token_bytes(token_id), span)
            for token_id, span in body
        ]
    rest = iter(aligned)
    tokens = [
        AlignedToken(token_id, kind="special") if inserted else next(rest)
        for token_id, _, inserted in rows
    ]
    return tokens, exact


class _Recorder:
    """A last pre-tokenizer that notes the words with their spans, and the span of each character."""

    words: Any = ()  # (word, span, tokens): there are tokens for an added token alone
    characters: Any = ()

    def pre_tokenize(self, pretokenized: Any) -> None:
        from tokenizers import Regex

        self.words = pretokenized.get_splits("original", "char")
        each = Regex(r"[\s\S]")
        pretokenized.split(lambda _, word: word.split(each, "isolated"))
        self.characters = pretokenized.get_splits("original", "char")


def _align(tokenizer: Tokenizer, text: str) -> Iterator[AlignedToken]:
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
            yield from _align_word(tokenizer, word, spans[start:end])
            start = end


def _align_word(
    tokenizer: Tokenizer, word: str, spans: list[tuple[int, int]]
) -> Iterator[AlignedToken]:
    """The model's tokens of a word: the slice of it under each, and where that comes from."""
    encoded = word.encode()
    ends = [0, *accumulate(len(character.encode()) for character in word)]
    for token in tokenizer.backend.model.tokenize(word):
        start, end = token.offsets  # in bytes
        first, last = bisect_right(ends, start) - 1, bisect_right(ends, end - 1) - 1
        span = (spans[first][0], max(spans[last][1], spans[first][0]))
        byte = BYTE_TOKEN.fullmatch(tokenizer.piece(token.id) or "")
        if tokenizer.kind == "byte_fallback" and byte:
            yield AlignedToken(token.id, bytes([int(byte[1], 16)]), span, "byte")
        else:
            data = tokenizer.spelled_bytes(encoded[start:end].decode("utf-8", "replace"))
            kind = "unknown" if token.id == tokenizer.unknown_id else None
            yield AlignedToken(token.id, data, span, kind)


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
