"""ids → visible text, a segment a step.

The one invariant: the joined segments are what decoding prompt and tokens together adds to decoding
the prompt alone, special tokens skipped. A segment is given out as soon as no later token can change
it: in the middle of a character it is empty, and a run of byte tokens (`<0xE6>`), which SentencePiece
tokenizers decode as a whole, is given out when the run ends.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Any

from decodecli.byte_level import ALPHABET

REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>\Z")
_CONTEXT = 12  # tokens of the prompt decoded along, so that a leading space is kept


class Detokenizer:
    """Turns token ids into text incrementally.

    Args:
        tokenizer: a transformers tokenizer.
        prompt_ids: what stands before the first token.
    """

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._special = special_ids(tokenizer)
        self._invisible_ids: dict[int, bool] = {}
        self._kind = tokenizer_kind(tokenizer)
        self._ids: list[int] = self._context(list(prompt_ids))
        self._known = self._decode(self._ids)  # the window's text that is already given out
        self._fresh = 0  # tokens in the window that are not yet settled

    def push(self, token_id: int) -> str:
        """Text that is certain now and was not before."""
        self._ids.append(token_id)
        self._fresh += 1
        unsettled = self._unsettled()
        if unsettled is None:
            return ""
        text = self._decode(self._ids)
        if unsettled:
            text = text[: len(text) - unsettled]
        segment = self._since(text)
        if not unsettled:
            # Start the next window at these tokens: their text is whole.
            self._ids = self._context(self._ids, at_least=self._fresh)
            self._known = self._decode(self._ids)
            self._fresh = 0
        elif not self._known.startswith(text):  # else the prompt itself ends inside a character
            self._known = text
        return segment

    def pending(self) -> str:
        """What `flush` would return, without ending the stream."""
        return self._since(self._decode(self._ids))

    def flush(self) -> str:
        """The rest, incomplete characters as U+FFFD."""
        text = self._decode(self._ids)
        segment = self._since(text)
        self._known = text
        return segment

    def _since(self, text: str) -> str:
        """What `text` adds to the known text (where they part, if invalid bytes changed its end)."""
        if text.startswith(self._known):
            return text[len(self._known) :]
        pairs = enumerate(zip(self._known, text, strict=False))
        return text[next((i for i, (old, new) in pairs if old != new), len(text)) :]

    def _decode(self, ids: list[int]) -> str:
        visible = [token for token in ids if not self._invisible(token)]
        text: str = self._tokenizer.decode(
            visible, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _invisible(self, token_id: int) -> bool:
        """Special tokens are skipped; ids beyond the tokenizer's vocabulary stand for nothing."""
        if token_id not in self._invisible_ids:
            unknown = piece_of(self._tokenizer, token_id) is None
            self._invisible_ids[token_id] = unknown or token_id in self._special
        return self._invisible_ids[token_id]

    def _piece(self, token_id: int) -> str:
        return piece_of(self._tokenizer, token_id) or ""

    def _context(self, ids: list[int], at_least: int = 1) -> list[int]:
        """The shortest tail of `ids` that decodes to some text, begins at no byte token's run, and
        holds `at_least` tokens."""
        start = max(len(ids) - at_least, 0)
        while start > 0:
            if not self._invisible(ids[start]):
                if self._kind == "byte_fallback":
                    is_start = not _BYTE_TOKEN.match(self._piece(ids[start]))
                elif self._kind == "byte_level":
                    first = _piece_bytes(self._piece(ids[start]))[:1]
                    is_start = first != b"" and not b"\x80" <= first < b"\xc0"
                else:
                    is_start = len(ids) - start >= _CONTEXT
                if is_start and self._decode(ids[start:]):
                    break
            start -= 1
        return ids[start:]

    def _unsettled(self) -> int | None:
        """How many characters at the end of the window's text may still change; None: all new ones."""
        if self._kind == "byte_fallback":
            last = next((i for i in reversed(self._ids) if not self._invisible(i)), None)
            return None if last is not None and _BYTE_TOKEN.match(self._piece(last)) else 0
        if self._kind == "byte_level":
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            visible = [token for token in self._ids if not self._invisible(token)]
            decoder.decode(b"".join(_piece_bytes(self._piece(token)) for token in visible))
            return 1 if decoder.getstate()[0] else 0
        # A tokenizer of another kind: a character takes at most four tokens of one byte each.
        if self._fresh < 4 and self._decode(self._ids).endswith(REPLACEMENT):
            return None
        return 0


def token_texts(tokenizer: Any, ids: Sequence[int], prompt_ids: Sequence[int] = ()) -> list[str]:
    """What each of `ids` adds to the text of `prompt_ids`."""
    stream = Detokenizer(tokenizer, prompt_ids)
    texts = [stream.push(token) for token in ids]
    if texts:
        texts[-1] += stream.flush()
    return texts


class TextStream:
    """The visible text of a run: detokenized, and ended before the first stop string."""

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt_ids)
        self._stop = tuple(stop)
        self._held = ""  # certain text that a stop string may still begin in
        self.stopped = False

    def push(self, token_id: int) -> str:
        """The segment that this token adds; sets `stopped` when a stop string is complete."""
        self._held += self._detokenizer.push(token_id)
        if not self._stop:
            return self._release(len(self._held))
        # A stop string counts as soon as it stands, though later bytes could still alter a run.
        end = self._find(self._held + self._detokenizer.pending())
        if end is not None:
            self._held += self._detokenizer.flush()
            self.stopped = True
            return self._release(end)
        # Hold back the longest end that a stop string may begin with.
        longest = min(max(map(len, self._stop)) - 1, len(self._held))
        for length in range(longest, 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return self._release(len(self._held) - length)
        return self._release(len(self._held))

    def finish(self) -> str:
        """What is left when no token follows."""
        if self.stopped:
            return ""
        self._held += self._detokenizer.flush()
        end = self._find(self._held)
        return self._release(len(self._held) if end is None else end)

    def _release(self, length: int) -> str:
        segment, self._held = self._held[:length], self._held[length:]
        return segment

    def _find(self, text: str) -> int | None:
        return min((i for stop in self._stop if (i := text.find(stop)) >= 0), default=None)


def piece_of(tokenizer: Any, token_id: int) -> str | None:
    """The vocabulary's piece, or None for an id that the tokenizer does not know."""
    try:
        piece = tokenizer.convert_ids_to_tokens(token_id)
    except (IndexError, ValueError, KeyError, OverflowError):  # what slow tokenizers raise
        return None
    return piece if isinstance(piece, str) else None


def special_ids(tokenizer: Any) -> set[int]:
    """The ids that decoding skips: those with a role, and added tokens that are marked special."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return set(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def tokenizer_kind(tokenizer: Any) -> str:
    """How the vocabulary spells bytes: "byte_fallback" (`<0xE6>`), "byte_level" (`æĹ¥`), "other"."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is not None:
        described = repr(decoder)
        byte_fallback, byte_level = "ByteFallback" in described, "ByteLevel" in described
    else:  # written in Python
        unknown = getattr(tokenizer, "unk_token_id", None)
        byte_fallback = tokenizer.convert_tokens_to_ids("<0xE6>") not in (None, unknown)
        byte_level = False
    return "byte_fallback" if byte_fallback else "byte_level" if byte_level else "other"


def _piece_bytes(piece: str) -> bytes:
    """A byte-level piece's bytes; an added token outside the alphabet stands for its own UTF-8."""
    try:
        return bytes(ALPHABET[character] for character in piece)
    except KeyError:
        return piece.encode("utf-8", "replace")
