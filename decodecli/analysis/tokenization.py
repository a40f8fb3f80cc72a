"""A text, a conversation or ids → a `TokenReport`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from decodecli.analysis.alignment import AlignedToken, encode_aligned
from decodecli.errors import PromptError, UsageError
from decodecli.models.time_limit import tokenized
from decodecli.models.tokenizer import Tokenizer, find_tokenizer
from decodecli.records.tokens import Difference, TokenReport, TokenRow

_EXCERPT = 24  # characters of a difference
_EXCERPT_IDS = 6


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
    tokens, exact = tokenized(
        tokenizer.name, text, lambda: encode_aligned(tokenizer, text, special=bos is not False)
    )
    tokens = _with_bos(tokenizer, text, tokens, bos)
    if not tokens and not text:
        reason = "--no-bos was given" if tokenizer.bos_id is not None else "it has no BOS token"
        raise PromptError(
            f"the text is empty, and {tokenizer.name} makes no token of it: {reason}",
            "give a text of at least one character",
        )
    decoded = tokenizer.decode([t.token_id for t in tokens if t.data or t.kind != "special"])
    difference = None
    if decoded != text:
        at = _first_difference(text, decoded)
        difference = Difference(at, text[at : at + _EXCERPT], decoded[at : at + _EXCERPT])
    return TokenReport(
        model=tokenizer.name,
        text=text,
        rows=_rows(tokenizer, tokens),
        decoded=decoded,
        difference=difference,
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
    encoded = [token.token_id for token in encode_aligned(tokenizer, text, special=False)[0]]
    difference = None
    if encoded != body:
        at = _first_difference(body, encoded)
        excerpts = [",".join(map(str, some[at : at + _EXCERPT_IDS])) for some in (body, encoded)]
        difference = Difference(at + has_bos, *excerpts)
    return TokenReport(
        model=tokenizer.name,
        text=text,
        rows=_rows(tokenizer, tokens),
        decoded=text,
        difference=difference,
        source="ids",
        byte_level=tokenizer.kind == "byte_level",
    )


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


def _with_bos(
    tokenizer: Tokenizer, text: str, tokens: list[AlignedToken], bos: bool | None
) -> list[AlignedToken]:
    """Add a BOS that was asked for and the tokenizer does not add, take away one that would stand
    twice; an empty text is BOS alone."""
    bos_id, piece = tokenizer.bos_id, tokenizer.roles.get("bos_token")
    if bos_id is None:
        return tokens
    ids = [token.token_id for token in tokens[:2]]
    if (bos and ids[:1] != [bos_id]) or (bos is not False and not tokens):
        return [AlignedToken(bos_id, kind="special"), *tokens]
    if piece and text.startswith(piece) and ids == [bos_id, bos_id] and not tokens[0].data:
        return tokens[1:]
    return tokens


def _rows(tokenizer: Tokenizer, tokens: list[AlignedToken]) -> tuple[TokenRow, ...]:
    """Rows with the text of each: of a character in several tokens, the last has all of it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return tuple(
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


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The first position at which two sequences differ."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
