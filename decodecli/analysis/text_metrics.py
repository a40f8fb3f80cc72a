"""What generated texts look like in numbers: variety, repetition, likeness to one another.

Pure functions of token ids or texts; the standard library and numpy only. What a number cannot be had
from gives None. docs/METRICS.md tells how to read them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

_PHRASE, _TIMES = 2, 3  # Holtzman et al. 2019: at least so many tokens, at least so many times


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
    only texts of about the same length compare. Li et al. 2016, arXiv 1510.03055.

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


def _ngrams(sequence: Sequence[Any], n: int) -> Iterable[tuple[Any, ...]]:
    return zip(*(sequence[start:] for start in range(n)), strict=False)
