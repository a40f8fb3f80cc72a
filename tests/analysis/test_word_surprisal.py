"""Surprisal by word: corrected, it is that of a distribution over words; plain, it is not."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from decodecli.analysis.next_token import all_positions
from decodecli.analysis.word_surprisal import by_word, word_starts
from decodecli.errors import PromptError

PIECES = ("<s>", "</s>", "▁a", "▁b", "a", "b")


class Codec:
    """Six pieces."""

    bos_token, all_special_ids = "<s>", [0, 1]

    def decode(self, ids, skip_special_tokens=False, clean_up_tokenization_spaces=False):
        return "".join(PIECES[k] for k in ids if k > 1).replace("▁", " ")

    def convert_ids_to_tokens(self, token):
        return PIECES[token]

    def convert_tokens_to_ids(self, piece):
        return PIECES.index(piece) if piece in PIECES else None


class Model:
    """Logits that are a fixed function of the tokens before."""

    eos_ids, bos_id, context, codec = frozenset({1}), 0, None, Codec()

    class info:
        vocab_size, name, device = len(PIECES), "toy", "cpu"

    def piece(self, token):
        return PIECES[token]

    def runner(self):
        return self

    def all_logits(self, ids):
        rows = []
        for end in range(1, len(ids) + 1):
            generator = torch.Generator().manual_seed(hash(tuple(ids[:end])) % 2**31)
            row = torch.randn(len(PIECES), generator=generator)
            row[0] = -torch.inf
            row[2:4] += 1.5  # most words are short
            rows.append(row)
        return torch.stack(rows)


def words(longest):
    for length in range(1, longest + 1):
        yield from itertools.product((2, 3), *[(4, 5)] * (length - 1))


def test_the_corrected_probabilities_of_all_words_are_a_distribution():
    lm, context = Model(), [0, 2, 5, 3]
    plain = corrected = 0.0
    for word in words(9):
        report = by_word(lm, [*context, *word])
        last = report.words[-1]
        assert last.tokens == tuple(PIECES[k] for k in word)
        plain += math.exp(-last.surprisal)
        corrected += math.exp(-last.corrected_surprisal)
    after = lm.all_logits(context)[-1].softmax(-1)
    end = float(after[1] / (after[1] + after[2] + after[3]))  # the text ends in place of a word
    assert 0.95 < corrected + end < 1 + 1e-6
    assert plain + end > 1.05


def test_the_plain_surprisal_is_the_sum_of_the_pieces_and_the_text_is_there(lm):
    text = "Once upon a time, there was a hedgehog.\nIt was unbelievably happy."
    report, tokens = by_word(lm, text), all_positions(lm, text)
    assert [word.word for word in report.words] == text.split()
    by_position = {p.position: p.surprisal for p in tokens.positions}
    for word in report.words:
        pieces = range(word.position, word.position + len(word.tokens))
        assert word.surprisal == pytest.approx(sum(by_position[k] for k in pieces), abs=1e-4)
        before = word.begins_logprob or 0.0
        assert word.corrected_surprisal == pytest.approx(
            word.surprisal - word.ends_logprob + before, abs=1e-9
        )
    assert sum(len(word.tokens) for word in report.words) == len(tokens.positions) - 1


def test_windows_change_nothing_that_they_need_not(lm):
    text = "The cat sat on the mat and looked at the moon."
    whole, parts = by_word(lm, text), by_word(lm, text, window=12, stride=6)
    assert [w.tokens for w in whole.words] == [w.tokens for w in parts.words]
    for one, other in zip(whole.words[:3], parts.words, strict=False):
        assert one.surprisal == pytest.approx(other.surprisal, abs=1e-4)


def test_white_space_begins_a_word_and_so_does_what_is_no_continuation(lm):
    starts = word_starts(lm)
    assert bool(starts[lm.codec.convert_tokens_to_ids("▁the")])
    assert not bool(starts[lm.codec.convert_tokens_to_ids("ing")])
    assert all(bool(starts[token]) for token in lm.eos_ids)

    class WordPiece(Model):
        def piece(self, token):
            return ("[CLS]", "[SEP]", "hot", "dog", "##s", "##el")[token]

    assert word_starts(WordPiece()).tolist() == [True, True, True, True, False, False]


def test_a_text_without_words_is_refused(lm):
    with pytest.raises(PromptError, match="no words"):
        by_word(lm, [lm.bos_id])
