"""What `softmax` and `inspect-logits` return: one distribution, laid out over temperatures.

Plain values. Probabilities are numbers in [0, 1], not logarithms; entropies are in nats; everything is
over the full list of tokens, whatever rows are shown.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from decodecli.records.display import Displayed, field_values
from decodecli.records.run import ModelInfo, perplexity

_INFINITE = (math.inf, -math.inf)


@dataclass(frozen=True, slots=True)
class Entry:
    """One token of a distribution: its rank and score, and a probability for each temperature.

    `final` and `removed_by` are empty when no filter is on; else `final` is None exactly where
    `removed_by` names the stage that removed the token. `score` is the logit, or what was given.
    """

    token: str
    token_id: int
    rank: int
    score: float | None
    probability: tuple[float, ...]
    final: tuple[float | None, ...] = ()
    removed_by: tuple[str | None, ...] = ()
    at_zero: float = 0.0
    at_infinity: float = 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """One temperature's distribution in a few numbers.

    temperature: 0 and infinity are the limits.
    entropy, perplexity: nats, and exp(entropy): the number of equally likely tokens.
    margin: probability of the first token less that of the second.
    covering: how many tokens hold 50, 90 and 99 % of the mass.
    cross_entropy: −log probability of the target, nats; None without one, infinite where it is 0.
    kept, final_entropy: after the filters; all of them, and the entropy, when none is on.
    """

    temperature: float
    entropy: float
    perplexity: float
    margin: float
    covering: tuple[int, int, int]
    cross_entropy: float | None
    kept: int
    final_entropy: float

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: None for what is infinite."""
        values = {
            name: None if value in _INFINITE else value for name, value in asdict(self).items()
        }
        return values | {"covering": dict(zip(("50", "90", "99"), self.covering, strict=True))}


@dataclass(frozen=True, repr=False)
class DistributionReport(Displayed):
    """A distribution over `size` tokens at each of `temperatures`, with its limits beside.

    `rows` are the highest scores in rank order (equal scores by id), then tokens that were asked for.
    `notes` are sentences a person should read with it.
    """

    source: str
    size: int
    spreads: tuple[Spread, ...]
    limits: tuple[Spread, Spread]
    rows: tuple[Entry, ...]
    order: tuple[str, ...] = ()
    target: str | None = None
    score_name: str = "logit"
    prompt: str | None = None
    prompt_ids: tuple[int, ...] = ()
    model: ModelInfo | None = None
    params: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def temperatures(self) -> tuple[float, ...]:
        return tuple(spread.temperature for spread in self.spreads)

    @property
    def filtered(self) -> bool:
        """Whether a filter is on."""
        return bool(self.rows and self.rows[0].final)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: one object a temperature, each with its tokens."""
        values: dict[str, Any] = {"command": self.source, "size": self.size}
        if self.model is not None:
            values["model"] = asdict(self.model)
            values |= {"prompt": self.prompt, "prompt_ids": list(self.prompt_ids)}
        values |= {"params": self.params, "order": list(self.order)}
        values |= {} if self.target is None else {"target": self.target}
        limits = {}
        for name, spread in zip(("zero", "infinity"), self.limits, strict=True):
            masses = ((row.token, getattr(row, f"at_{name}")) for row in self.rows)
            tokens = [{"token": token, "probability": mass} for token, mass in masses]
            limits[name] = spread.as_dict() | {"tokens": tokens}
        temperatures = [
            spread.as_dict() | {"tokens": self._tokens(index)}
            for index, spread in enumerate(self.spreads)
        ]
        return values | {"temperatures": temperatures, "limits": limits}

    def _tokens(self, index: int) -> list[dict[str, Any]]:
        tokens = []
        for row in self.rows:
            tokens.append({"token": row.token, "token_id": row.token_id, "rank": row.rank})
            tokens[-1] |= {self.score_name: row.score, "probability": row.probability[index]}
            if row.final:
                tokens[-1] |= {"final": row.final[index], "removed_by": row.removed_by[index]}
        return tokens

    def flat(self) -> list[dict[str, Any]]:
        """One record a token and temperature: what CSV, JSONL and pandas hold."""
        return [
            {
                "temperature": spread.temperature,
                **token,
                "entropy": spread.entropy,
                **({"cross_entropy": spread.cross_entropy} if self.target is not None else {}),
            }
            for index, spread in enumerate(self.spreads)
            for token in self._tokens(index)
        ]


@dataclass(frozen=True, slots=True)
class Continuation:
    """The rank and logprob of a text or token as what comes next, token by token.

    `logprobs[i]` is that of the i-th token given the prompt and the tokens before it, at temperature 1;
    `ranks` and `logits` likewise. Their sum is the logprob of the whole.
    """

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    ranks: tuple[int, ...]
    logits: tuple[float, ...]
    logprobs: tuple[float, ...]

    @property
    def logprob(self) -> float:
        return math.fsum(self.logprobs)

    def as_dict(self) -> dict[str, Any]:
        logprob = self.logprob
        return {**asdict(self), "logprob": logprob, "probability": math.exp(logprob)}


@dataclass(frozen=True, slots=True)
class Position:
    """One token of a text, scored by the model given the tokens before it.

    Everything but the token is None for the first one, which nothing predicts. Logprobs and entropy
    in nats at temperature 1; `favourite` is the token the model would rather have had.
    """

    position: int
    token_id: int
    token: str
    text: str
    rank: int | None = None
    logprob: float | None = None
    entropy: float | None = None
    favourite: str | None = None
    favourite_probability: float | None = None

    @property
    def surprisal(self) -> float | None:
        return None if self.logprob is None else -self.logprob

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "surprisal": self.surprisal}


@dataclass(frozen=True, repr=False)
class TextReport(Displayed):
    """A whole text under the model, token by token.

    `window` and `stride` in tokens: texts longer than the window are read in windows that begin
    `stride` tokens apart, and a token counts in the first window that holds it, where it has the most
    text before it but at least `window` − `stride` tokens (the first window excepted).
    """

    model: ModelInfo
    positions: tuple[Position, ...]
    characters: int
    window: int
    stride: int
    windows: int

    @property
    def scored(self) -> int:
        """How many tokens have a probability."""
        return sum(position.logprob is not None for position in self.positions)

    @property
    def mean_logprob(self) -> float | None:
        logprobs = [p.logprob for p in self.positions if p.logprob is not None]
        return math.fsum(logprobs) / len(logprobs) if logprobs else None

    @property
    def perplexity(self) -> float | None:
        return perplexity(self.mean_logprob)

    @property
    def bits_per_character(self) -> float | None:
        mean = self.mean_logprob
        if mean is None or not self.characters:
            return None
        return -mean * self.scored / self.characters / math.log(2)

    def as_dict(self) -> dict[str, Any]:
        return {
            "command": "inspect-logits",
            "model": asdict(self.model),
            **field_values(self, ("mean_logprob", "perplexity", "bits_per_character")),
            "tokens": len(self.positions),
            **field_values(self, ("scored", "window", "stride", "windows")),
            "positions": self.flat(),
        }

    def flat(self) -> list[dict[str, Any]]:
        """One record a token."""
        return [position.as_dict() for position in self.positions]


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, of the tokens from `position` on.

    surprisal: −log of the product of its tokens' probabilities, nats. corrected_surprisal: of the word
    as a whole, by how probable it is that a word begins before it and after it (`begins_logprob`,
    `ends_logprob`; arXiv 2406.14561). None where nothing stands before the word.
    """

    index: int
    word: str
    position: int
    tokens: tuple[str, ...]
    surprisal: float | None
    corrected_surprisal: float | None
    begins_logprob: float | None
    ends_logprob: float

    def as_dict(self) -> dict[str, Any]:
        return field_values(self)


@dataclass(frozen=True, repr=False)
class WordReport(Displayed):
    """A text word by word; `window` and `stride` as in `TextReport`."""

    model: ModelInfo
    words: tuple[Word, ...]
    window: int
    stride: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "command": "inspect-logits",
            "model": asdict(self.model),
            **field_values(self, ("window", "stride")),
            "words": [word.as_dict() for word in self.words],
        }

    def flat(self) -> list[dict[str, Any]]:
        """One record a word, its tokens as one text."""
        return [{**word.as_dict(), "tokens": " ".join(word.tokens)} for word in self.words]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one distribution is from the first: KL divergence of the first from it, in nats, total
    variation in [0, 1], and how many of the first's listed tokens changed rank."""

    kl: float
    total_variation: float
    ranks_changed: int


@dataclass(frozen=True, repr=False)
class ComparisonReport(Displayed):
    """The same prompt's distribution under several variants of a model, the first the reference.

    `reports` list the same tokens in the same order: the union of every variant's top rows.
    """

    by: str
    variants: tuple[str, ...]
    reports: tuple[DistributionReport, ...]
    differences: tuple[Difference, ...]
    listed: int = 0  # how many of the first's tokens `ranks_changed` is counted over
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        parts = zip(self.variants, self.differences, self.reports, strict=True)
        variants = [
            {"variant": name, **asdict(difference), **report.as_dict()}
            for name, difference, report in parts
        ]
        return {"command": "inspect-logits", "compare": self.by, "variants": variants}

    def flat(self) -> list[dict[str, Any]]:
        """One record a variant, temperature and token."""
        return [
            {self.by: name, **row}
            for name, report in zip(self.variants, self.reports, strict=True)
            for row in report.flat()
        ]


@dataclass(frozen=True)
class StagesDone:
    """A column of `SideBySide`: the stages that ran, how many tokens they keep, and the entropy of what
    is left, nats. `name` is the order's, or that of the last stage."""

    name: str
    order: tuple[str, ...]
    kept: int
    entropy: float


@dataclass(frozen=True)
class TokenAcross:
    """A token with its probability at temperature 1 before all stages, and one in each column: 0 where
    the stage of that name in `removed_by` removed it."""

    token: str
    token_id: int
    rank: int
    logit: float
    probability: float
    after: tuple[float, ...]
    removed_by: tuple[str | None, ...]


@dataclass(frozen=True)
class Columns:
    """The distributions that stages make of the same logits, in columns: the ends of several orders, or
    after each stage of one. `total_variation` is between every two of them, over the whole vocabulary.
    """

    columns: tuple[StagesDone, ...]
    rows: tuple[TokenAcross, ...]
    total_variation: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SideBySide:
    """The `Columns` of what follows a prompt."""

    model: ModelInfo
    prompt: str
    prompt_ids: tuple[int, ...]
    params: dict[str, Any]
    across: Columns

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        return {"command": "inspect-logits", **values, **values.pop("across")}

    def flat(self) -> list[dict[str, Any]]:
        """One record a column and token."""
        return [
            {
                "column": column.name,
                **{name: getattr(row, name) for name in ("rank", "token_id", "token", "logit")},
                "probability": row.after[number],
                "removed_by": row.removed_by[number],
                "kept": column.kept,
            }
            for number, column in enumerate(self.across.columns)
            for row in self.across.rows
        ]
