"""Numbers typed by hand or read from a file → tokens and scores for `softmax`.

Logits as they are, or probabilities (their logarithms are the scores), or energies (the negative is
the score: Boltzmann's softmax(−E / T)). Every problem is one `UsageError`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from decodecli.analysis.distribution import Filter, describe
from decodecli.csv_text import without_apostrophe
from decodecli.errors import UsageError
from decodecli.records.distribution import DistributionReport
from decodecli.settings import ORDER, WITH_HISTORY, SamplingParams, stage_order
from decodecli.text_files import parse_json

KINDS = ("logit", "probability", "energy")
_ONE_TOKEN = "one token alone has probability 1 at every temperature"
_TOLERANCE = 1e-4  # how far typed probabilities may be from summing to 1
Pairs = list[tuple[str, float]]


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

    >>> softmax({"day": 5.0, "space": 2.2}, [1.0]).rows[0].probability

    Args:
        numbers: token → number, pairs, or numbers alone (named by their index).
        kind: "logit", "probability" or "energy".
        target: the token whose cross-entropy is wanted.
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
    names, scores = check_pairs(pairs, kind)
    if target is not None and target not in names:
        raise UsageError(
            f"--target {target} is none of the tokens", f"they are: {', '.join(names[:12])}"
        )
    filters = {}
    if params is not None:
        order = stage_order(replace(params, temperature=1.0))
        filters = {name: getattr(params, name) for name in order if name not in WITH_HISTORY}
    report = describe(
        scores,
        lambda index: names[index],
        temperatures,
        source="softmax",
        extra=range(len(names)),
        sort=sort,
        target=None if target is None else names.index(target),
        apply=_apply(scores, filters) if filters else None,
        score_name=kind,
        order=tuple(name for name in ORDER if name == "temperature" or name in filters),
        params=filters,
        notes=(_ONE_TOKEN,) if len(names) == 1 else (),
    )
    if kind == "logit":
        return report
    # Show the numbers as they were given, not the scores made of them.
    rows = tuple(replace(row, score=float(pairs[row.token_id][1])) for row in report.rows)
    return replace(report, rows=rows)


def _apply(scores: list[float], filters: dict[str, Any]) -> Filter:
    from decodecli.sampling import reference

    return lambda temperature, _: reference.filter_in_order(scores, temperature, filters)


def check_pairs(pairs: Pairs, kind: str) -> tuple[list[str], list[float]]:
    """Names and scores of the pairs; raises `UsageError` as `softmax` does."""
    if kind not in KINDS:
        raise UsageError(f"kind must be one of {', '.join(KINDS)}, got {kind}")
    if not pairs:
        raise UsageError("there are no numbers", "give TOKEN=LOGIT, for example day=5.0 space=2.2")
    values: dict[str, float] = {}
    impossible = -math.inf if kind == "energy" else math.inf
    for name, number in pairs:
        if name in values:
            raise UsageError(f"the token {name} is given twice", "give each token once")
        value = values[name] = _number(name, number)
        if math.isnan(value) or value == impossible:
            raise UsageError(f"{name}={value:g} has no place in a softmax", f"give a finite {kind}")
    scores = _scores(list(values.values()), kind)
    if max(scores) == -math.inf:
        raise UsageError(
            "every token has probability 0", f"at least one {kind} must leave some probability"
        )
    return list(values), scores


def _scores(values: list[float], kind: str) -> list[float]:
    if kind == "energy":
        return [-value for value in values]
    if kind == "logit":
        return values
    if min(values) < 0:
        raise UsageError(f"a probability is below 0: {min(values):g}", "give numbers from 0 to 1")
    total = math.fsum(values)
    if abs(total - 1) > _TOLERANCE:
        raise UsageError(
            f"the probabilities sum to {total:.6g}, not to 1",
            "divide each by the sum, or give logits (without --probs)",
        )
    return [math.log(value) if value else -math.inf for value in values]


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
        return _from_json(text, where, kind)
    return _from_csv(text, where, kind)


def _from_json(text: str, where: str, kind: str) -> Pairs:
    values = parse_json(text, where, 'like {"day": 5.0}')
    if isinstance(values, dict):
        return [(name, _number(name, value)) for name, value in values.items()]
    pairs: Pairs = []
    for index, value in enumerate(values):
        name = str(index)
        if isinstance(value, dict):
            for key in ("token", kind):
                if key not in value:
                    raise UsageError(
                        f"entry {index} of {where} has no {key}", f"keys: token, {kind}"
                    )
            name, value = str(value["token"]), value[kind]
        pairs.append((name, _number(name, value)))
    return pairs


def _from_csv(text: str, where: str, kind: str) -> Pairs:
    import csv
    import io

    try:
        rows = csv.DictReader(io.StringIO(text))
        columns = [name.strip() for name in rows.fieldnames or []]
        rows.fieldnames = columns
        lines = list(rows)
    except csv.Error as error:  # a field of 128 KiB
        raise UsageError(f"{where} is not a table: {error}", "give CSV, or JSON") from None
    if not columns:
        return []
    missing = [name for name in ("token", kind) if name not in columns]
    if missing:
        has = ", ".join(columns)
        raise UsageError(
            f"{where} has no column {' and no column '.join(missing)} (it has: {has[:60]})",
            f"the first line names the columns: token,{kind}",
        )
    named = [(without_apostrophe(row["token"] or ""), row[kind]) for row in lines]
    return [(token, _number(token, value)) for token, value in named]


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        excerpt = f"{name[:40]}={reprlib.repr(value)}"  # of any length and depth
        raise UsageError(f"{excerpt} is not a number", "give TOKEN=NUMBER") from None
