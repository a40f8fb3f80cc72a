"""One list of scores → a `DistributionReport`: exact, over temperatures, in float64.

`describe` serves `inspect-logits` (a model's logits) too, `softmax` numbers typed by hand or read from a
file. Imports no torch, and numpy only for long lists and filters.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from decodecli.csv_text import without_apostrophe
from decodecli.errors import UsageError
from decodecli.ranges import check_choice
from decodecli.records.distribution import DistributionReport, Entry, Spread
from decodecli.sampling import plain_python
from decodecli.settings import SamplingParams
from decodecli.stages import OF_SCORES_ALONE, parse_order, stage_order
from decodecli.text_files import parse_json

# temperature, tempered log probabilities → final log probabilities, and what each stage removed
Filter = Callable[[float, Any], tuple[Any, Mapping[str, Any]]]
SORTS = ("rank", "given")
KINDS = ("logit", "probability", "energy")
Pairs = list[tuple[str, float]]
_SHORT_LIST = 1000  # numbers
_TOLERANCE = 1e-4  # how far typed probabilities may be from summing to 1


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


def softmax(
    numbers: dict[str, float] | Sequence[tuple[str, float]] | Sequence[float],
    temperatures: Sequence[float] = (1.0,),
    *,
    kind: str = "logit",
    target: str | None = None,
    params: SamplingParams | None = None,
    sort: str = "rank",
) -> DistributionReport:
    """The distribution of a few numbers over temperatures.

    Logits are the scores as they are; of probabilities the logarithms are, of energies the negatives
    (Boltzmann's softmax(−E / T)). The arguments are those of `decodecli.softmax`, and:

    Args:
        params: filters to apply (its temperature and penalties are not used).
        sort: "rank" lists the highest score first, "given" keeps the order of the numbers.

    Raises:
        UsageError: nothing to work on, a number that is none, names that are not unique,
            probabilities that do not sum to 1, a target that is not there.
    """
    if isinstance(numbers, dict):
        pairs: Pairs = list(numbers.items())
    elif all(isinstance(number, tuple) for number in numbers):
        pairs = [(str(name), value) for name, value in numbers]  # type: ignore[misc]
    else:
        pairs = [(str(index), value) for index, value in enumerate(numbers)]  # type: ignore[misc]
    scores = _scores(pairs, kind)
    names = [name for name, _ in pairs]
    if target is not None and target not in names:
        raise UsageError(
            f"--target {target} is none of the tokens", f"they are: {', '.join(names[:12])}"
        )
    params = params or SamplingParams()
    order = parse_order(params.order)
    on = {
        name for temperature in temperatures or (1.0,) for name in stage_order(params, temperature)
    }
    on.update(stage_order(params, temperature=1.0))
    filters = {name: getattr(params, name) for name in OF_SCORES_ALONE if name in on}

    def apply(temperature: float, _: Any) -> tuple[Any, Any]:
        from decodecli.sampling import reference

        return reference.filter_in_order(scores, temperature, filters, order)

    notes = ("one token alone has probability 1 at every temperature",)
    report = describe(
        scores,
        names.__getitem__,
        temperatures,
        source="softmax",
        extra=range(len(names)),
        sort=sort,
        target=None if target is None else names.index(target),
        apply=apply if filters else None,
        score_name=kind,
        order=tuple(name for name in order if name == "temperature" or name in filters),
        params=filters,
        notes=notes if len(names) == 1 else (),
    )
    if kind == "logit":
        return report
    # Show the numbers as they were given, not the scores made of them.
    rows = tuple(replace(row, score=float(pairs[row.token_id][1])) for row in report.rows)
    return replace(report, rows=rows)


def _scores(pairs: Pairs, kind: str) -> list[float]:
    """What the softmax is of, for numbers of a kind; raises `UsageError` as `softmax` does."""
    if kind not in KINDS:
        raise UsageError(f"kind must be one of {', '.join(KINDS)}, got {kind}")
    if not pairs:
        raise UsageError("there are no numbers", "give TOKEN=LOGIT, for example day=5.0 space=2.2")
    numbers: dict[str, float] = {}
    impossible = -math.inf if kind == "energy" else math.inf
    for name, typed in pairs:
        if name in numbers:
            raise UsageError(f"the token {name} is given twice", "give each token once")
        number = numbers[name] = _number(name, typed)
        if math.isnan(number) or number == impossible:
            raise UsageError(
                f"{name}={number:g} has no place in a softmax", f"give a finite {kind}"
            )
    scores = list(numbers.values())
    if kind == "energy":
        scores = [-energy for energy in scores]
    elif kind == "probability":
        if min(scores) < 0:
            raise UsageError(
                f"a probability is below 0: {min(scores):g}", "give numbers from 0 to 1"
            )
        total = sum(scores)
        if abs(total - 1) > _TOLERANCE:
            raise UsageError(
                f"the probabilities sum to {total:.6g}, not to 1",
                "divide each by the sum, or give logits (without --probs)",
            )
        scores = [math.log(share) if share else -math.inf for share in scores]
    if max(scores) == -math.inf:
        raise UsageError(
            "every token has probability 0", f"at least one {kind} must leave some probability"
        )
    return scores


def pairs_from_words(words: Sequence[str]) -> Pairs:
    """TOKEN=NUMBER words; the last = separates, so that a token may hold one."""
    pairs: Pairs = []
    for word in words:
        name, equals, number = word.rpartition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"{word!r} is not TOKEN=NUMBER", "for example day=5.0 space=2.2")
        pairs.append((name, _number(name, number)))
    return pairs


def pairs_from_text(text: str, where: str, kind: str) -> Pairs:
    """Pairs from CSV (columns token and logit, probability or energy) or JSON (an object of numbers,
    a list of objects with those keys, or a list of numbers)."""
    if text.lstrip()[:1] in ("{", "["):
        values = parse_json(text, where, 'like {"day": 5.0}')
        if isinstance(values, dict):
            return [(name, _number(name, value)) for name, value in values.items()]
        pairs: Pairs = []
        for index, value in enumerate(values):
            name = str(index)
            if isinstance(value, dict):
                for key in ("token", kind):
                    if key not in value:
                        problem = f"entry {index} of {where} has no {key}"
                        raise UsageError(problem, f"keys: token, {kind}")
                name, value = str(value["token"]), value[kind]
            pairs.append((name, _number(name, value)))
        return pairs

    import csv
    import io

    try:
        table = csv.DictReader(io.StringIO(text))
        columns = table.fieldnames = [name.strip() for name in table.fieldnames or []]
        rows = list(table) if columns else []
    except csv.Error as error:  # a field of 128 KiB
        raise UsageError(f"{where} is not a table: {error}", "give CSV, or JSON") from None
    missing = [name for name in ("token", kind) if name not in columns]
    if columns and missing:
        has = ", ".join(columns)
        raise UsageError(
            f"{where} has no column {' and no column '.join(missing)} (it has: {has[:60]})",
            f"the first line names the columns: token,{kind}",
        )
    names = [without_apostrophe(row["token"] or "") for row in rows]
    return [(name, _number(name, row[kind])) for name, row in zip(names, rows, strict=True)]


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        excerpt = f"{name[:40]}={reprlib.repr(value)}"  # of any length and depth
        raise UsageError(f"{excerpt} is not a number", "give TOKEN=NUMBER") from None
