"""Numbers of texts against sacrebleu, scipy, and counting by hand."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from scipy import stats

from decodecli.analysis.text_metrics import (
    cell_numbers,
    corpus_distinct,
    distinct,
    divergence_step,
    identical_share,
    repeats,
    self_bleu,
    self_bleu_scores,
    words,
    zipf,
    zipf_without_each,
)

IDS = st.lists(st.integers(0, 4), max_size=12)
# Little variety, so that texts share n-grams, and every character that the tokenizer looks at.
TEXTS = st.text("ab 12.,-'&;<\n日本、ไ\u3000", max_size=25)
SPELLED = st.lists(
    st.sampled_from(["a", "b ", "-\n", "&amp;", "<skipped>", "3.1", ", "]), max_size=9
)

STORIES = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside.",
    "Once upon a time, there was a little dog named Max. He loved to play with his ball.",
    "One day, a boy went to the park; it was 3.5 miles away, and 1,000 birds sang.",
    "Once upon a time, there was a little girl named Lily. She loved to play outside.",
]
JAPANESE = [
    "むかしむかし、あるところに、おじいさんとおばあさんがいました。",
    "むかし、あるところに、カエルが住んでいました。名前はケロ（Kero）です。",
    "日本の首都は東京です。人口は約1,400万人です。",
]
CHINESE = [
    "从前有一个小女孩，她喜欢在花园里玩。",
    "从前有一只小狗，它喜欢在花园里跑。",
    "中国的首都是北京。",
]


def apart(text: str) -> str:
    """Characters of unspaced scripts and full-width ones between spaces, by their Unicode names."""
    names = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "THAI")
    return "".join(
        f" {character} " if unicodedata.name(character, "").startswith(names) else character
        for character in text
    )


def sacrebleus(texts: list[str]) -> list[float]:
    texts = [apart(text) for text in texts]
    others = [texts[:i] + texts[i + 1 :] for i in range(len(texts))]
    pairs = zip(texts, others, strict=True)
    return [sacrebleu.sentence_bleu(text, rest).score / 100 for text, rest in pairs]


# distinct-n


def test_distinct_n_by_hand():
    ids = [1, 2, 1, 2, 3]
    assert [distinct(ids, n) for n in (1, 2, 3, 4, 5)] == [3 / 5, 3 / 4, 1, 1, 1]


def test_distinct_n_of_a_set_counts_every_sequences_n_grams():
    assert corpus_distinct([[1, 2, 3], [2, 3, 4]], 2) == 3 / 4
    assert corpus_distinct([[1, 2], [3, 4]], 2) == 1  # (2, 3) is in neither


@pytest.mark.parametrize(("ids", "n"), [([], 1), ([7], 2), ([7, 8], 3)])
def test_without_n_grams_there_is_no_distinct_n(ids, n):
    assert distinct(ids, n) is None
    assert corpus_distinct([ids, ids], n) is None


def test_there_are_no_0_grams():
    with pytest.raises(ValueError, match="at least one token"):
        distinct([1], 0)


@given(IDS, st.integers(1, 4))
def test_distinct_n_is_a_share_and_1_without_repetition(ids, n):
    found = distinct(ids, n)
    if len(ids) < n:
        assert found is None
    else:
        assert 0 < found <= 1
        assert distinct(list(range(len(ids))), n) == 1
        twice = corpus_distinct([ids, ids], n)
        assert twice == pytest.approx(found / 2)


# Loops


@pytest.mark.parametrize(
    ("ids", "loops"),
    [
        ([], False),
        ([5], False),
        ([5, 5, 5, 5, 5], False),  # a phrase has two tokens
        ([5, 5, 5, 5, 5, 5], True),
        ([9, 1, 2, 1, 2, 1, 2], True),
        ([1, 2, 1, 2, 1, 2, 9], False),  # not at the end
        ([1, 2, 1, 2], False),  # only twice
        ([7, 1, 2, 3, 1, 2, 3, 1, 2, 3], True),
        ([2, 3, 1, 2, 3, 1, 2, 3, 1], True),  # the loop may be cut off anywhere
    ],
)
def test_a_loop_is_a_phrase_three_times_at_the_end(ids, loops):
    assert repeats(ids) is loops


@given(IDS, st.lists(st.integers(0, 4), min_size=2, max_size=5), st.integers(3, 5))
def test_whatever_comes_before_a_loop_it_is_found(before, phrase, times):
    assert repeats(before + phrase * times)


def test_a_cells_numbers_leave_its_end_token_out():
    loop = [1, 2, 1, 2, 1, 2]
    expected = {"distinct_1": 2 / 6, "distinct_2": 2 / 5, "distinct_3": 2 / 4, "repeats": True}
    assert cell_numbers(loop) == expected
    assert cell_numbers([*loop, 0], end_ids={0}) == expected
    assert not cell_numbers([*loop, 0])["repeats"]
    assert cell_numbers([0], end_ids={0}) == cell_numbers([])
    assert list(cell_numbers([]).values()) == [None, None, None, False]


# Self-BLEU


@pytest.mark.parametrize(
    "texts",
    [
        STORIES,
        JAPANESE,
        CHINESE,
        STORIES + JAPANESE + CHINESE,
        ["", "a"],
        ["", ""],
        ["a", "a"],
        ["a", "b", "a b"],
        ["one two", "one two three four five six", "one"],
        ["yes yes yes yes yes", "yes", "yes yes no"],
        ["x y", " x  y \n", "x-\ny"],
        ["said &quot;no&quot;", 'said "no"', "R&amp;D <skipped>5-3"],
    ],
)
def test_self_bleu_is_sacrebleus(texts):
    expected = sacrebleus(texts)
    assert self_bleu_scores(texts) == pytest.approx(expected, rel=1e-12)
    assert self_bleu(texts) == pytest.approx(sum(expected) / len(expected), rel=1e-12)


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXTS, min_size=2, max_size=6))
def test_self_bleu_of_any_texts_is_sacrebleus(texts):
    assert self_bleu_scores(texts) == pytest.approx(sacrebleus(texts), rel=1e-12, abs=1e-15)


def test_english_words_are_those_of_sacrebleus_default():
    for text in STORIES:
        assert words(text) == Tokenizer13a()(text).split()


@given(SPELLED.map("".join) | st.text("ab12.,-'\"&;<>()[]{}\\^$/~` \t\n", max_size=30))
def test_words_without_unspaced_scripts_are_mteval_v13as(text):
    assert words(text) == Tokenizer13a()(text.rstrip()).split()


def test_japanese_and_chinese_are_compared_by_character():
    assert words("東京です。Tokyo!") == ["東", "京", "で", "す", "。", "Tokyo", "!"]
    assert words("花园，ok") == ["花", "园", "，", "ok"]
    assert words("서울은 크다") == ["서울은", "크다"]  # Korean has spaces
    assert self_bleu(JAPANESE[:2]) > 0.2


def test_the_same_text_has_self_bleu_1_and_strangers_0():
    assert self_bleu(["a b c d e"] * 3) == 1
    assert self_bleu(["a b c d e", "f g h"]) == 0


def test_one_text_alone_has_no_self_bleu():
    assert self_bleu([]) is self_bleu(["a"]) is None


@given(st.lists(TEXTS, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_self_bleu_is_a_share_whatever_the_order(texts, rng: random.Random):
    found = self_bleu(texts)
    assert 0 <= found <= 1
    assert self_bleu(rng.sample(texts, len(texts))) == found


def test_self_bleu_of_a_hundred_texts_takes_less_than_a_second():
    rng = random.Random(0)
    texts = [" ".join(rng.choices(STORIES[2].split(), k=100)) for _ in range(100)]
    start = time.perf_counter()
    self_bleu(texts)
    assert time.perf_counter() - start < 1


# Zipf


def linregress(sequences) -> float | None:
    counts = Counter(token for sequence in sequences for token in sequence)
    heights = sorted(counts.values(), reverse=True)[:5000]
    if len(heights) < 2:
        return None
    return -stats.linregress(np.log(np.arange(1, len(heights) + 1)), np.log(heights)).slope


@pytest.mark.parametrize("exponent", [1.05, 1.3, 2.0])
def test_the_zipf_coefficient_is_scipys_slope(exponent):
    rng = np.random.default_rng(3)
    drawn = [(rng.zipf(exponent, 4000) % 20_000).tolist() for _ in range(5)]
    assert len(set().union(*drawn)) > 5000 or exponent > 1.05  # the ranks beyond are cut off
    assert zipf(drawn) == pytest.approx(linregress(drawn), rel=1e-10)


@settings(deadline=None)
@given(st.lists(IDS, max_size=6))
def test_the_zipf_coefficient_of_any_ids_is_scipys_slope(sequences):
    expected = linregress(sequences)
    if expected is None:
        assert zipf(sequences) is None
    else:
        assert zipf(sequences) == pytest.approx(expected, rel=1e-9, abs=1e-10)
        assert zipf(sequences) >= 0


@given(st.lists(IDS, max_size=6))
def test_leaving_a_sequence_out_is_counting_without_it(sequences):
    expected = [zipf(sequences[:i] + sequences[i + 1 :]) for i in range(len(sequences))]
    assert zipf_without_each(sequences) == expected


def test_the_zipf_coefficient_by_hand():
    assert zipf([[1, 2, 3], [4]]) == 0  # all as frequent
    assert zipf([[1, 1, 1, 1, 2, 2]]) == pytest.approx(1)  # 4 and 2: half as often at rank 2
    assert zipf([]) is zipf([[]]) is zipf([[5, 5]]) is None


# Over seeds


def test_identical_share_counts_pairs():
    assert identical_share([[1, 2], [1, 2], [1, 2], [1, 3]]) == 3 / 6
    assert identical_share([[1], [1]]) == 1
    assert identical_share([[1], [1, 2]]) == 0
    assert identical_share([[], []]) == 1
    assert identical_share([[1]]) is identical_share([]) is None


def test_divergence_is_the_mean_over_the_pairs_that_differ():
    assert divergence_step([[1, 2, 3], [1, 2, 4]]) == 2
    assert divergence_step([[1, 2, 3], [1, 2, 4], [5, 2, 3]]) == pytest.approx((2 + 0 + 0) / 3)
    assert divergence_step([[1, 2, 3], [1, 2, 3], [1, 9, 3]]) == 1  # the equal pair is left out
    assert divergence_step([[1, 2], [1, 2, 3]]) == 2  # one ended
    assert divergence_step([[], [1]]) == 0
    assert divergence_step([[1, 2]] * 3) is divergence_step([[1]]) is divergence_step([]) is None


@given(st.lists(IDS, min_size=2, max_size=7))
def test_divergence_and_identity_are_what_comparing_all_pairs_gives(sequences):
    steps, equal = [], 0
    for one, other in combinations(sequences, 2):
        if one == other:
            equal += 1
            continue
        both = list(zip(one, other, strict=False))
        steps.append(next((i for i, (a, b) in enumerate(both) if a != b), len(both)))
    assert identical_share(sequences) == equal / (equal + len(steps))
    expected = sum(steps) / len(steps) if steps else None
    assert divergence_step(sequences) == expected


def test_the_numbers_need_neither_torch_nor_scipy():
    script = (
        "import sys, decodecli.analysis.text_metrics, decodecli.sweeps.summary;"
        "print([m for m in ('torch', 'transformers', 'scipy', 'sacrebleu') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
