"""How surprising each word of a text is, for tokenizers whose pieces mark where a word begins.

The pieces of a word tell where it begins and not where it ends: the probability that they give to "␣hot"
holds what "␣hotel" will take. The product of the pieces' probabilities, which is what is mostly used, is
therefore no probability of the word. Pimentel & Meister 2024 (arXiv 2406.14561) correct it: times the
probability that the next piece begins a word, after the word, over the same before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from decodecli.analysis.next_token import text_rows, text_window
from decodecli.decoding.prompt import encode
from decodecli.errors import PromptError
from decodecli.models.detokenize import token_texts
from decodecli.models.loading import LanguageModel
from decodecli.records.distribution import Word, WordReport

_STARTS = ("▁", "Ġ", "Ċ", "ĉ", " ", "\n", "\t", "<0x0A>", "<0x20>", "<0x09>")


def word_starts(lm: LanguageModel) -> torch.Tensor:
    """(vocab,) True for tokens that begin a word or end the text: those that begin with white space, or,
    in a WordPiece vocabulary, those that do not go on with one."""
    pieces = [lm.piece(token) for token in range(lm.info.vocab_size)]
    if any(piece.startswith("##") for piece in pieces):
        starts = torch.tensor([not piece.startswith("##") for piece in pieces])
    else:
        starts = torch.tensor([piece.startswith(_STARTS) for piece in pieces])
    starts[sorted(lm.eos_ids)] = True
    return starts


@torch.inference_mode()
def by_word(
    lm: LanguageModel,
    text: str | Sequence[int],
    *,
    window: int | None = None,
    stride: int | None = None,
    bos: bool | None = None,
) -> WordReport:
    """The words of a text, each with its surprisal: plain, the sum of its pieces', and corrected.

    A word goes from one piece that begins one to the next, so punctuation behind it belongs to it. The
    first word has no beginning to correct for, and, where no BOS token stands before it, no surprisal.

    Raises:
        PromptError: the text has no words. UsageError: as `all_positions`.
    """
    ids = encode(lm, text, bos) if isinstance(text, str) else [int(token) for token in text]
    starts = word_starts(lm)
    special = {lm.bos_id, *lm.eos_ids}
    first = next((k for k, token in enumerate(ids) if token not in special), len(ids))
    if first == len(ids):
        raise PromptError("the text has no words", "give some text")
    window, stride = text_window(lm, window, stride)
    logprobs: list[float | None] = [None]
    boundaries: list[float] = [0.0]  # log probability that a word begins here
    for position, row in text_rows(lm, ids, window, stride):
        scores = row.double().log_softmax(-1)
        boundaries.append(float(scores[starts.to(scores.device)].logsumexp(-1)))
        if position < len(ids):
            logprobs.append(float(scores[ids[position]]))
    texts = token_texts(lm.codec, ids)
    begins = [first, *(k for k in range(first + 1, len(ids)) if bool(starts[ids[k]])), len(ids)]
    words: list[Word] = []
    for begin, end in pairwise(begins):
        parts = logprobs[begin:end]
        plain = None if None in parts else -sum(part or 0.0 for part in parts)
        corrected = None
        if plain is not None:
            before = boundaries[begin] if begin > first else 0.0
            corrected = plain - boundaries[end] + before
        words.append(
            Word(
                index=len(words),
                word="".join(texts[begin:end]).strip(),
                position=begin,
                tokens=tuple(lm.piece(token) for token in ids[begin:end]),
                surprisal=plain,
                corrected_surprisal=corrected,
                begins_logprob=boundaries[begin] if begin > first else None,
                ends_logprob=boundaries[end],
            )
        )
    return WordReport(lm.info, tuple(words), window, stride)
