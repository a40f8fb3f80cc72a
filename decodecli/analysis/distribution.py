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
_SHORT_LIST = 1000  # numbers


def numeric_module(*scores: Any) -> Any:
    """The module to compute with: `plain_python` for short lists, else `reference`."""
    if all(isinstance(values, list) and len(values) <= _SHORT_LIST for values in scores):
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
    extra: Sequence[int] = (),
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
        extra: indexes to list in any case.
        sort: "rank", or "given": the extra indexes alone, in their order.
        target: the index whose cross-entropy is wanted.
        apply: the filters; None when none is on.
        ranked_by: what rows are ranked by and shown as score, where penalties changed `scores`.
        more: further fields of the report.
    """
    numeric = numeric_module(scores)
    ranking = scores if ranked_by is None else ranked_by
    check_choice("sort", sort, SORTS)
    highest = numeric.row_order(ranking)[:rows] if sort == "rank" else ()
    listed = list(dict.fromkeys([*map(int, highest), *extra]))

    spreads, columns = [], []  # a column: probability, final probability and remover of each row
    for temperature in check_temperatures(temperatures):
        tempered = numeric.log_softmax(scores, temperature)
        final, removed = (tempered, {}) if apply is None else apply(temperature, tempered)
        spreads.append(_spread(temperature, tempered, final, target))
        columns.append(
            [
                (
                    math.exp(tempered[index]),
                    math.exp(final[index]),
                    next((stage for stage, mask in removed.items() if mask[index]), None),
                )
                for index in listed
            ]
        )
    zero, infinity = (numeric.log_softmax(scores, end) for end in (0.0, math.inf))
    entries = []
    for row, index in enumerate(listed):
        probabilities, finals, removers = zip(*(column[row] for column in columns), strict=True)
        kept = zip(finals, removers, strict=True)
        entries.append(
            Entry(
                token=name(index),
                token_id=index,
                rank=numeric.rank_of(ranking, index),
                score=float(ranking[index]) if math.isfinite(ranking[index]) else None,
                probability=probabilities,
                final=() if apply is None else tuple(None if r else final for final, r in kept),
                removed_by=() if apply is None else removers,
                at_zero=math.exp(zero[index]),
                at_infinity=math.exp(infinity[index]),
            )
        )
    return DistributionReport(
        source=source,
        size=len(scores),
        spreads=tuple(spreads),
        limits=(_spread(0.0, zero, zero, target), _spread(math.inf, infinity, infinity, target)),
        rows=tuple(entries),
        target=None if target is None else name(target),
        **more,
    )


def _spread(temperature: float, tempered: Any, final: Any, target: int | None) -> Spread:
    numeric = numeric_module(tempered, final)
    nats = numeric.entropy(tempered)
    return Spread(
        temperature=temperature,
        entropy=nats,
        perplexity=math.exp(nats),
        margin=numeric.margin(tempered),
        covering=numeric.covering(tempered),
        cross_entropy=None if target is None else max(0.0, -float(tempered[target])),
        kept=numeric.kept(final),
        final_entropy=numeric.entropy(final),
    )
