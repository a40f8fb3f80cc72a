"""What generated texts look like in numbers: variety, repetition, likeness to one another.

Pure functions of token ids or texts; the standard library and numpy only. What a number cannot be had
from gives None. docs/METRICS.md tells how to read them.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodecli.analysis.confidence_intervals import mean

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_PHRASE, _TIMES = 2, 3  # Holtzman et al. 2019: at least so many tokens, at least so many times
_ORDERS = 4  # BLEU-4
_ZIPF_RANKS = 5000  # as in the code of Holtzman et al.
_UNSPACED = re.compile(
    "["
    "\u2e80-\u2fdf\u3001-\u303f\u31c0-\u31ef\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han, marks
    "\U00020000-\U000323af"  # Han, the rarer
    "\u3040-\u30ff\u31f0-\u31ff\uff01-\uff9f"  # kana, full-width marks and letters
    "\u3100-\u312f\u31a0-\u31bf"  # bopomofo
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    "]"
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# mteval-v13a: marks stand alone; a full stop or comma unless between digits; a dash after a digit.
_MARKS = (
    (re.compile(r"[!-&(-+/:-@\[-`{-~]"), r" \g<0> "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def cell_numbers(token_ids: Sequence[int], end_ids: Collection[int] = ()) -> dict[str, Any]:
    """The numbers that a cell's tokens alone decide, by `CellRecord`'s names.

    Args:
        token_ids: what was drawn, one id a step.
        end_ids: the model's end tokens; one at the very end is no part of the text and left out.

    Returns:
        distinct_1, distinct_2, distinct_3: float in (0, 1], or None without such n-grams;
        repeats: bool.
    """
    ids = tuple(token_ids)
    if ids and ids[-1] in end_ids:
        ids = ids[:-1]
    numbers: dict[str, Any] = {f"distinct_{n}": distinct(ids, n) for n in (1, 2, 3)}
    return numbers | {"repeats": repeats(ids)}


def distinct(token_ids: Sequence[int], n: int) -> float | None:
    """distinct-n of one sequence: its different n-grams over all its n-grams.

    Range (0, 1]: 1 when no n-gram comes twice. None when it is shorter than n. Falls with length, so
    only texts of about the same length compare. Li et al. 2016, arXiv 1510.03055, who divide by the
    tokens; by the n-grams, as is usual since, a text without repetition has 1 for every n.

    Raises:
        ValueError: n is below 1.
    """
    return corpus_distinct((token_ids,), n)


def corpus_distinct(sequences: Iterable[Sequence[int]], n: int) -> float | None:
    """distinct-n over a set: the different n-grams of all sequences over all their n-grams.

    Range (0, 1]; None when every sequence is shorter than n. No n-gram reaches from one sequence into
    the next. Li et al. 2016, arXiv 1510.03055.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n-grams have at least one token, got n = {n}")
    seen: set[tuple[int, ...]] = set()
    total = 0
    for sequence in sequences:
        seen.update(_ngrams(sequence, n))
        total += max(0, len(sequence) - n + 1)
    return len(seen) / total if total else None


def repeats(token_ids: Sequence[int]) -> bool:
    """Whether the sequence ends in a loop: a phrase of at least 2 tokens, at least 3 times in a row.

    One token six times over is such a phrase. An end token must be taken off before. Holtzman et al.
    2019, arXiv 1904.09751, where the share of such generations is the repetition percentage.
    """
    ids = tuple(token_ids)
    for size in range(_PHRASE, len(ids) // _TIMES + 1):
        tail = ids[-_TIMES * size :]
        if tail[:-size] == tail[size:]:
            return True
    return False


def words(text: str) -> list[str]:
    """The text's words and marks: what self-BLEU compares.

    mteval-v13a, the default tokenizer of sacrebleu ("13a"; Post 2018, arXiv 1804.08771), after every
    character of a script without spaces (Han, kana, bopomofo, Thai, Lao, Khmer, Burmese, Tibetan) and
    every full-width character has been set apart, as sacrebleu's "zh" does it for Chinese.
    """
    line = _UNSPACED.sub(r" \g<0> ", text).rstrip()
    line = line.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        line = line.replace(entity, character)
    line = f" {line} "
    for pattern, apart in _MARKS:
        line = pattern.sub(apart, line)
    return line.split()


def self_bleu(texts: Sequence[str]) -> float | None:
    """Self-BLEU-4: the mean over the texts of each one's BLEU against all the others.

    Range [0, 1]: 1 when all are the same text, 0 when no two share a word. None from fewer than two.
    Zhu et al. 2018, arXiv 1802.01886; BLEU: Papineni et al. 2002. The BLEU is that of
    `sacrebleu.sentence_bleu(text, others)` over 100 with its defaults: case kept, effective order,
    exponential smoothing, words as in `words`.
    """
    scores = self_bleu_scores(texts)
    return mean(scores) if scores else None


def self_bleu_scores(texts: Sequence[str]) -> list[float]:
    """Each text's BLEU against all the others, in [0, 1]; empty from fewer than two texts.

    An n-gram counts as often as it comes in that other text which has it most often; the length to
    reach is the nearest among the others' lengths, of two as near the shorter. A text without words
    scores 0.
    """
    if len(texts) < 2:
        return []
    vocabulary: dict[str, int] = {}
    found = [
        array("i", (vocabulary.setdefault(word, len(vocabulary)) for word in words(text)))
        for text in texts
    ]
    lengths = [len(some) for some in found]
    matches = _matches(found, len(vocabulary))
    nearest = _nearest_lengths(lengths)
    return [
        _bleu(matched, length, reference)
        for matched, length, reference in zip(matches, lengths, nearest, strict=True)
    ]


def zipf(sequences: Iterable[Sequence[int]]) -> float | None:
    """Zipf coefficient: the slope, its sign turned, of log frequency over log rank of the tokens.

    By least squares over the 5,000 most frequent tokens of all sequences together. From 0, when every
    token comes equally often, upwards; it grows with the number of tokens. None with fewer than two
    different tokens. Holtzman et al. 2019, arXiv 1904.09751, after Zipf 1949.
    """
    return _zipf_slope(np.bincount(_frequencies(_joined(sequences))[1]))


def zipf_without_each(sequences: Sequence[Sequence[int]]) -> list[float | None]:
    """The Zipf coefficients with each sequence left out in turn: what `jackknife` asks for."""
    # Only how many tokens have each frequency matters, and one sequence moves few tokens.
    joined = _joined(sequences)
    place, counts = _frequencies(joined)
    histogram = np.bincount(counts)
    found, start = [], 0
    for sequence in sequences:
        end = start + len(sequence)
        token, own = np.unique(place[start:end], return_counts=True)
        before, start = counts[token], end
        moved = np.bincount(before - own, minlength=histogram.size)
        moved -= np.bincount(before, minlength=histogram.size)
        found.append(_zipf_slope(histogram + moved))
    return found


def identical_share(sequences: Sequence[Sequence[int]]) -> float | None:
    """The share of pairs whose token ids are equal from first to last.

    Range [0, 1]; None from fewer than two sequences. With one prompt and setting and a sequence a
    seed: the probability that two seeds give the same output.
    """
    count = len(sequences)
    if count < 2:
        return None
    copies = Counter(tuple(sequence) for sequence in sequences).values()
    return sum(map(_pairs, copies)) / _pairs(count)


def divergence_step(sequences: Sequence[Sequence[int]]) -> float | None:
    """The first step at which two sequences differ: the mean over all pairs that ever do.

    Steps count from 0, as in the trace. Where one sequence ends and the other goes on, they differ at
    the step the shorter lacks. Pairs that never differ are left out, and None when none does.
    """
    steps = pairs = step = 0
    groups = [Counter(tuple(sequence) for sequence in sequences)]  # alike so far
    while groups:
        following = []
        for group in groups:
            parts: dict[int | None, Counter[tuple[int, ...]]] = {}
            for sequence, copies in group.items():
                token = sequence[step] if step < len(sequence) else None
                parts.setdefault(token, Counter())[sequence] = copies
            parting = _pairs(group.total()) - sum(_pairs(part.total()) for part in parts.values())
            steps, pairs = steps + parting * step, pairs + parting
            following += [part for part in parts.values() if len(part) > 1]
        groups, step = following, step + 1
    return steps / pairs if pairs else None


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _ngrams(sequence: Sequence[Any], n: int) -> Iterable[tuple[Any, ...]]:
    return zip(*(sequence[start:] for start in range(n)), strict=False)


def _matches(found: Sequence[Sequence[int]], vocabulary: int) -> list[list[int]]:
    """For each list of word numbers, how many of its 1- to 4-grams the others have: (texts, 4)."""
    ids = _joined(found)
    lengths = np.array([len(some) for some in found])
    owner = np.repeat(np.arange(len(found)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(ids.size)  # words to the text's end
    gram, columns = ids, []
    start = np.arange(ids.size)
    for order in range(1, _ORDERS + 1):
        if order > 1:
            # An n-gram's number: that of the (n − 1)-gram and its next word, made small again.
            longer = left[start] >= order
            start = start[longer]
            pairs = gram[longer] * vocabulary + ids[start + order - 1]
            gram = np.unique(pairs, return_inverse=True)[1]
        columns.append(_clipped(gram, owner[start], len(found)))
    return np.stack(columns, axis=1).tolist()


def _clipped(gram: Ints, owner: Ints, texts: int) -> Ints:
    """Of each text's n-grams, how many the other text that has most of each also has: (texts,)."""
    if not gram.size:
        return np.zeros(texts, dtype=np.int64)
    key, count = np.unique(gram * texts + owner, return_counts=True)
    gram, owner = np.divmod(key, texts)
    order = np.lexsort((-count, gram))
    gram, owner, count = gram[order], owner[order], count[order]
    # Rows of one n-gram stand together, the highest count first.
    first = np.flatnonzero(np.diff(gram, prepend=-1))
    rows = np.diff(first, append=gram.size)
    second = np.where(rows > 1, count[np.minimum(first + 1, gram.size - 1)], 0)
    others = np.repeat(count[first], rows)
    others[first] = second  # the one with most meets the next
    return np.bincount(owner, np.minimum(count, others), minlength=texts).astype(np.int64)


def _nearest_lengths(lengths: Sequence[int]) -> list[int]:
    known = Counter(lengths)

    def nearest(length: int) -> int:
        others = (other for other, texts in known.items() if other != length or texts > 1)
        return min(others, key=lambda other: (abs(other - length), other))

    found = {length: nearest(length) for length in known}
    return [found[length] for length in lengths]


def _bleu(matched: Sequence[int], length: int, reference: int) -> float:
    if not any(matched):
        return 0.0
    logs, halvings = [], 0
    for order, matches in enumerate(matched[:length]):
        # The k-th order without a match counts as half a match, a quarter, …
        halvings += not matches
        logs.append(math.log((matches or 0.5**halvings) / (length - order)))
    brevity = min(0.0, 1 - reference / length)
    return math.exp(brevity + math.fsum(logs) / len(logs))


def _joined(sequences: Iterable[Sequence[int]]) -> Ints:
    parts = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _frequencies(tokens: Ints) -> tuple[Ints, Ints]:
    """For each token the place of its count, and the counts: (tokens,), (different tokens,)."""
    _, place, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    return place, counts


def _zipf_slope(histogram: Ints) -> float | None:
    """From how many tokens come once, twice, …: histogram[f], of which histogram[0] is ignored."""
    frequency = np.flatnonzero(histogram[1:])[::-1] + 1
    ends = np.minimum(np.cumsum(histogram[frequency]), _ZIPF_RANKS)
    ranks = int(ends[-1]) if ends.size else 0
    if ranks < 2:
        return None
    # Equal frequencies take a run of ranks, and sums over runs are differences of running sums.
    height = np.log(frequency)
    height -= height[0]
    logs, squares = _log_ranks()
    run = np.diff(ends, prepend=0)
    run_logs = np.diff(logs[ends], prepend=0.0)
    sum_x, sum_y = logs[ranks], (height * run).sum()
    numerator = ranks * (height * run_logs).sum() - sum_x * sum_y
    return float(-numerator / (ranks * squares[ranks] - sum_x**2)) + 0.0


@cache
def _log_ranks() -> tuple[Floats, Floats]:
    """The sums of log r and of its square over ranks 1 … k, at index k."""
    logs = np.log(np.arange(1, _ZIPF_RANKS + 1))
    return np.cumsum([0.0, *logs]), np.cumsum([0.0, *logs**2])
