"""What a run leaves behind: one header, its steps, one summary, and their JSON form (schema 1).

Plain values only, so that a view, a file or a notebook can hold them without torch. The words are
defined in docs/WORDS.md; probabilities are kept as natural logarithms, None standing for log 0.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, overload

from decodecli.errors import UsageError
from decodecli.records.display import Displayed, continuation_repr, field_values
from decodecli.records.run_curves import StepCurve

SCHEMA = 1


def exp_or_zero(logprob: float | None) -> float:
    """A probability from its natural logarithm; None is the logarithm of 0."""
    return 0.0 if logprob is None else math.exp(logprob)


@dataclass(frozen=True)
class ModelInfo:
    """What was loaded, with what each `auto` became."""

    name: str
    revision: str | None
    parameters: int
    vocab_size: int
    dtype: str
    device: str
    quantize: str


@dataclass(frozen=True)
class RunHeader:
    """A run's model, prompt and settings: enough to repeat it."""

    decodecli: str
    versions: dict[str, str]
    model: ModelInfo
    prompt: str
    prompt_ids: tuple[int, ...]
    params: dict[str, Any]
    sources: dict[str, str]
    order: tuple[str, ...]
    seed: int

    @property
    def greedy(self) -> bool:
        """Whether the most probable token was taken every time, whatever the seed."""
        return "greedy" in self.order or self.params.get("temperature") == 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `{"type": "run", "schema": 1, ...}`."""
        return {"type": "run", "schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of a step's table: a token with its numbers.

    `rank` is 1 + the number of tokens with a strictly greater logit. `logprob` is at temperature 1
    without penalty or filter, `tempered_logprob` after penalties and temperature, both over the full
    vocabulary. `cumulative` is the tempered probability of all tokens up to and including this row.
    `final_logprob` is None exactly when `removed_by` names the stage that removed the token.
    """

    rank: int
    token_id: int
    token: str
    logit: float
    logprob: float
    tempered_logprob: float
    cumulative: float
    final_logprob: float | None
    removed_by: str | None

    def as_dict(self) -> dict[str, Any]:
        return field_values(self)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What other settings would have drawn at a step, from the same logits with the noise of the same
    seed, after the tokens of the run itself.

    `settings` is how they were asked for, `final_logprob` is under them, `logprob` and `rank` are the
    model's own. `first_divergence` marks the first step at which the token is another than the run's.
    None is what a record that lists few candidates does not tell.
    """

    settings: str
    token_id: int | None
    token: str | None
    rank: int | None
    logprob: float | None
    final_logprob: float | None
    kept: int | None
    first_divergence: bool

    def as_dict(self) -> dict[str, Any]:
        return field_values(self)


@dataclass(frozen=True, slots=True)
class Watched(Candidate):
    """The numbers of a token that was named, wherever it ranks. `watch` is how it was named; of a text of
    several tokens this is the one that would go on with it here."""

    watch: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """How many tokens a stage removed from a step first, and their tempered probability."""

    stage: str
    tokens: int
    mass: float

    def as_dict(self) -> dict[str, Any]:
        return field_values(self)


@dataclass(frozen=True, slots=True)
class Without:
    """What would have been drawn at a step, with the same noise, were one stage off."""

    stage: str
    token_id: int
    token: str

    def as_dict(self) -> dict[str, Any]:
        return field_values(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a step took its token: the temperature, what each filter cut, what each stage that was on
    changed, and the most probable token of what was left (`top_id`, `top`)."""

    temperature: float
    cuts: tuple[Cut, ...]
    without: tuple[Without, ...]
    top_id: int
    top: str

    def as_dict(self) -> dict[str, Any]:
        rows = {
            name: [row.as_dict() for row in getattr(self, name)] for name in ("cuts", "without")
        }
        return {**field_values(self), **rows}


_IF_ASKED = {
    "optional": True
}  # metadata of fields that a record has only where they were asked for


@dataclass(frozen=True, slots=True)
class Step(Displayed):
    """One decoding step: one forward pass, one chosen token.

    `index` counts from 0, `position` is the token's index in the whole sequence. `text` is what the
    step adds to the visible text. Entropies are in nats over the full vocabulary: `entropy` at
    temperature 1, `final_entropy` of the distribution drawn from. `kept` tokens no stage removed.
    `candidates` are the highest logits in rank order, and the chosen token if it is not among them.
    `what_if`, `watch` and `explain` are there where they were asked for, `constrained_mass` under a
    constraint: what the model had put, at temperature 1, on the tokens that it rules out.
    """

    index: int
    position: int
    token_id: int
    token: str
    text: str
    rank: int
    logit: float
    logprob: float
    tempered_logprob: float
    final_logprob: float
    entropy: float
    final_entropy: float
    kept: int
    candidates: tuple[Candidate, ...]
    what_if: tuple[WhatIf, ...] = field(default=(), metadata=_IF_ASKED)
    watch: tuple[Watched, ...] = field(default=(), metadata=_IF_ASKED)
    explain: Explanation | None = field(default=None, metadata=_IF_ASKED)
    constrained_mass: float | None = field(default=None, metadata=_IF_ASKED)

    def __repr__(self) -> str:
        share = 100 * math.exp(self.logprob)
        return f"Step({self.index}, {self.token!r}, rank {self.rank}, p {share:.3g}%)"

    @property
    def surprisal(self) -> float:
        """−logprob of the chosen token, nats."""
        return -self.logprob

    def flat(self) -> list[dict[str, Any]]:
        """One record a candidate."""
        return [candidate.as_dict() for candidate in self.candidates]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `{"type": "step", ...}`, without what was not asked for."""
        values = {"type": "step", **field_values(self, STEP_COLUMNS)}
        for name in _STEP_ROWS:
            rows = getattr(self, name)
            if rows or name == "candidates":
                values[name] = [row.as_dict() for row in rows]
        if self.explain is not None:
            values["explain"] = self.explain.as_dict()
        if self.constrained_mass is not None:
            values["constrained_mass"] = self.constrained_mass
        return values

    @property
    def sentence(self) -> str:
        """Why this token was taken, in words; "" where no explanation was asked for."""
        return str(importlib.import_module("decodecli.render.explanation").sentence(self))


_STEP_ROWS = ("candidates", "what_if", "watch")
# Of a table with a row a step.
STEP_COLUMNS = tuple(
    item.name for item in fields(Step) if not item.metadata and item.name != "candidates"
)


@dataclass(frozen=True)
class RunSummary:
    """How a run ended. `mean_logprob` and `perplexity` are of the chosen tokens under the model at
    temperature 1; both, and the rate, are None for a run without tokens. `seconds` has `load`,
    `prefill` and `decode`; `tokens_per_second` counts prefill and decode."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    new_tokens: int
    mean_logprob: float | None
    perplexity: float | None
    seconds: dict[str, float]
    tokens_per_second: float | None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `{"type": "summary", ...}`."""
        return {"type": "summary", **asdict(self)}


@dataclass(frozen=True)
class Run(Displayed):
    """A whole trace in memory: a sequence of its steps, counted from 0.

    curves: of each step by its index, what the interactive page needs; after `page=True`.
    """

    header: RunHeader
    steps: tuple[Step, ...]
    summary: RunSummary
    notices: tuple[str, ...] = field(default=())
    curves: Mapping[int, StepCurve] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        texts = continuation_repr(self.header.prompt, self.text)
        return f"Run({texts}, {self.summary.new_tokens} tokens, seed {self.header.seed})"

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, index: int | slice) -> Step | tuple[Step, ...]:
        try:
            return self.steps[index]
        except IndexError:
            last = f", 0 to {len(self) - 1}" if self.steps else ""
            raise IndexError(f"this run has {len(self)} steps{last}; got {index}") from None

    def __bool__(self) -> bool:
        """A run without steps is a run too."""
        return True

    @property
    def text(self) -> str:
        """The generated text."""
        return self.summary.text

    def _repr_html_(self) -> str:
        """The interactive page in a frame where the run has its curves, else text and tables."""
        if not self.curves:
            return super()._repr_html_()
        return str(importlib.import_module("decodecli.render.html.run_page").inline(self))

    def save_html(self, path: str) -> None:
        """Write the interactive page, as `generate --html` does.

        Raises:
            UsageError: the run was not generated with `page=True`.
            WriteError: it cannot be written.
        """
        if not self.curves:
            raise UsageError(
                "this run does not have what its page needs", "generate it with page=True"
            )
        importlib.import_module("decodecli.render.html.run_page").write_page(self, path)

    def plot(self, path: str | None = None) -> Any:
        """The text in its colours, each token's by its probability: as a matplotlib figure, which a
        notebook shows, or written to `path` (.png, .svg, .pdf or .html).

        Raises:
            UsageError: an unknown suffix, or matplotlib is missing.
            WriteError: it cannot be written.
        """
        return importlib.import_module("decodecli.render.plots.text").plot_run(self, path)

    def flat(self) -> list[dict[str, Any]]:
        """One record a step, without the candidates; with what was asked for beside them."""
        records = []
        for step in self.steps:
            record = field_values(step, STEP_COLUMNS)
            for other in step.what_if:
                record[f"what if {other.settings}"] = other.token
            for row in step.watch:
                numbers = ("rank", "logprob", "final_logprob")
                record |= {f"{row.watch} {name}": getattr(row, name) for name in numbers}
            records.append(record)
        return records

    def as_dicts(self) -> list[dict[str, Any]]:
        """The trace's records in order, as they stand in a JSONL file."""
        steps = [step.as_dict() for step in self.steps]
        return [self.header.as_dict(), *steps, self.summary.as_dict()]


def perplexity(mean_logprob: float | None) -> float | None:
    """exp(−mean logprob); None when there is none or it is beyond a float."""
    if mean_logprob is None or mean_logprob < -700:
        return None
    return math.exp(-mean_logprob)
