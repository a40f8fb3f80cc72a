"""One list of scores → a `DistributionReport`: exact, over temperatures, in float64.

Serves `softmax` (numbers typed by hand) and `inspect-logits` (a model's logits); imports no torch, and
numpy only for long lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decodecli.errors import UsageError
from decodecli.records.distribution import DistributionReport, Entry, Spread
from decodecli.sampling import plain_python
from decodecli.settings import check_choice

# temperature, tempered log probabilities → final log probabilities, and what each stage removed
Filter = Callable[[float, Any], tuple[Any, Mapping[str, Any]]]
SORTS = ("rank", "given")
_BY_HAND = 1000  # numbers


def calculator(*scores: Any) -> Any:
    """The module to compute with: `plain_python` for short lists, else `reference`."""
    if all(isinstance(values, list) and len(values) <= _BY_HAND for values in scores):
        return plain_python
    from decodecli.sampling import reference

    return reference


def check_temperatures(temperatures: Sequence[float]) -> tuple[float, ...]:
    """The temperatures, each a finite number of at least 0.

    Raises:
        UsageError: there is none, or one is negative or not a number.
    """
    if not temperatures:
        raise UsageError("--temperature needs at least one value", "for example -t 0.4,1.0,1.6")
    for value in temperatures:
        if not value >= 0 or math.isinf(value):
            raise UsageError(
                f"--temperature must be a finite number of at least 0, got {value:g}",
                "0 is the limit of ever lower temperatures; the other limit is shown beside",
            )
    return tuple(float(value) for value in temperatures)


def describe(
    scores: Any,
    name: Callable[[int], str],
    temperatures: Sequence[float] = (1.0,),
    *,
    source: str,
    rows: int | None = None,
    asked: Sequence[int] = (),
    sort: str = "rank",
    target: int | None = None,
    apply: Filter | None = None,
    ranked_by: Any | None = None,
    **more: Any,
) -> DistributionReport:
    """Lay one distribution out over temperatures.

    Args:
        scores: `size` floats, what is divided by the temperature: logits after any penalty.
        name: the token of an index.
        rows: how many of the highest to list; None lists all.
        asked: indexes to list in any case.
        sort: "rank", or "given": the asked indexes alone, in the order in which they were given.
        target: the index whose cross-entropy is wanted.
        apply: the filters; None when none is on.
        ranked_by: what rows are ranked by and shown as score, where penalties changed `scores`.
        more: further fields of the report.
    """
    d = calculator(scores)
    shown = scores if ranked_by is None else ranked_by
    check_choice("sort", sort, SORTS)
    listed: list[int] = []
    if sort == "rank":
        listed = [
            int(index) for index in d.row_order(shown)[: len(scores) if rows is None else rows]
        ]
    listed += [index for index in dict.fromkeys(asked) if index not in set(listed)]

    spreads, probabilities, finals, removers = [], [], [], []
    for temperature in check_temperatures(temperatures):
        tempered = d.log_softmax(scores, temperature)
        final, removed = (tempered, {}) if apply is None else apply(temperature, tempered)
        spreads.append(_spread(temperature, tempered, final, target))
        probabilities.append([math.exp(tempered[index]) for index in listed])
        finals.append([math.exp(final[index]) for index in listed])
        removers.append([_first(removed, index) for index in listed])
    ends = [d.log_softmax(scores, end) for end in (0.0, math.inf)]
    zero, infinity = (
        _spread(t, end, end, target) for t, end in zip((0.0, math.inf), ends, strict=True)
    )
    entries = tuple(
        Entry(
            token=name(index),
            token_id=index,
            rank=d.rank_of(shown, index),
            score=float(shown[index]) if math.isfinite(shown[index]) else None,
            probability=tuple(column[row] for column in probabilities),
            final=_finals(finals, removers, row) if apply is not None else (),
            removed_by=tuple(names[row] for names in removers) if apply is not None else (),
            at_zero=math.exp(ends[0][index]),
            at_infinity=math.exp(ends[1][index]),
        )
        for row, index in enumerate(listed)
    )
    return DistributionReport(
        source=source,
        size=len(scores),
        spreads=tuple(spreads),
        limits=(zero, infinity),
        rows=entries,
        target=None if target is None else name(target),
        **more,
    )


def _spread(temperature: float, tempered: Any, final: Any, target: int | None) -> Spread:
    d = calculator(tempered, final)
    nats = d.entropy(tempered)
    half, most, nearly_all = d.covering(tempered)
    return Spread(
        temperature=temperature,
        entropy=nats,
        perplexity=math.exp(nats),
        margin=d.margin(tempered),
        covering=(half, most, nearly_all),
        cross_entropy=None if target is None else max(0.0, -float(tempered[target])),
        kept=d.kept(final),
        final_entropy=d.entropy(final),
    )


def _first(removed: Mapping[str, Any], index: int) -> str | None:
    return next((name for name, mask in removed.items() if mask[index]), None)


def _finals(
    columns: list[list[float]], removers: list[list[str | None]], row: int
) -> tuple[float | None, ...]:
    return tuple(
        None if names[row] else column[row] for column, names in zip(columns, removers, strict=True)
    )
