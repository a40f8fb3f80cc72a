"""What a run leaves behind: one header, its steps, one summary, and their JSON form (schema 1).

Plain values only, so that a view, a file or a notebook can hold them without torch. The words are
defined in docs/WORDS.md; probabilities are kept as natural logarithms, None standing for log 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, overload

from decodecli.records.display import Displayed

SCHEMA = 1
# Controls beyond those that JSON escapes anyway, line separators, and bidirectional overrides.
_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def exp_or_zero(logprob: float | None) -> float:
    """A probability from its natural logarithm; None is the logarithm of 0."""
    return 0.0 if logprob is None else math.exp(logprob)


def to_json_line(record: dict[str, Any]) -> str:
    """One record as strict JSON on one line, non-ASCII text as it is, except for what would steer a
    terminal that shows the line: that is escaped."""
    return _harmless(_encoded(record))


def step_json_line(step: Step) -> str:
    """`to_json_line(step.as_dict())` in half the time: a run writes one a token.

    Only what is a float or a string is spelt here; whatever else a caller put into a step goes the
    long way, as do numbers that are not finite, which are refused there.
    """
    try:
        finite = step.logit + step.logprob + step.tempered_logprob + step.final_logprob
        finite += step.entropy + step.final_entropy
        if finite - finite != 0:
            return to_json_line(step.as_dict())
        rows = ",".join([_row_json(row) for row in step.candidates])
        return (
            f'{{"type":"step","index":{_int(step.index)},"position":{_int(step.position)}'
            f',"token_id":{_int(step.token_id)},"token":{_string(step.token)}'
            f',"text":{_string(step.text)},"rank":{_int(step.rank)},"logit":{_float(step.logit)}'
            f',"logprob":{_float(step.logprob)}'
            f',"tempered_logprob":{_float(step.tempered_logprob)}'
            f',"final_logprob":{_float(step.final_logprob)},"entropy":{_float(step.entropy)}'
            f',"final_entropy":{_float(step.final_entropy)},"kept":{_int(step.kept)}'
            f',"candidates":[{rows}]}}'
        )
    except (TypeError, ValueError):
        return to_json_line(step.as_dict())


def _row_json(row: Candidate) -> str:
    logit, logprob, tempered = row.logit, row.logprob, row.tempered_logprob
    final, removed, cumulative = row.final_logprob, row.removed_by, row.cumulative
    finite = logit + logprob + tempered + cumulative + (final or 0.0)
    if finite - finite != 0:
        raise ValueError("not JSON")
    return (
        f'{{"rank":{_int(row.rank)},"token_id":{_int(row.token_id)},"token":{_string(row.token)}'
        f',"logit":{_float(logit)},"logprob":{_float(logprob)}'
        f',"tempered_logprob":{_float(tempered)},"cumulative":{_float(cumulative)}'
        f',"final_logprob":{"null" if final is None else _float(final)}'
        f',"removed_by":{"null" if removed is None else _string(removed)}}}'
    )


_int, _float = int.__repr__, float.__repr__  # and nothing but an int or a float


@lru_cache(maxsize=4096)
def _string(text: str) -> str:
    return _harmless(_encoded(text))


_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _harmless(line: str) -> str:
    if line.isascii() and "\x7f" not in line:
        return line
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


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
    """What a run was asked: enough to repeat it."""

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
        return {
            "rank": self.rank,
            "token_id": self.token_id,
            "token": self.token,
            "logit": self.logit,
            "logprob": self.logprob,
            "tempered_logprob": self.tempered_logprob,
            "cumulative": self.cumulative,
            "final_logprob": self.final_logprob,
            "removed_by": self.removed_by,
        }


@dataclass(frozen=True, slots=True)
class Step(Displayed):
    """One decoding step: one forward pass, one chosen token.

    `index` counts from 0, `position` is the token's index in the whole sequence. `text` is what the
    step adds to the visible text. Entropies are in nats over the full vocabulary: `entropy` at
    temperature 1, `final_entropy` of the distribution drawn from. `kept` tokens no stage removed.
    `candidates` are the highest logits in rank order, and the chosen token if it is not among them.
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
        """The JSON form: `{"type": "step", ...}`."""
        return {
            "type": "step",
            "index": self.index,
            "position": self.position,
            "token_id": self.token_id,
            "token": self.token,
            "text": self.text,
            "rank": self.rank,
            "logit": self.logit,
            "logprob": self.logprob,
            "tempered_logprob": self.tempered_logprob,
            "final_logprob": self.final_logprob,
            "entropy": self.entropy,
            "final_entropy": self.final_entropy,
            "kept": self.kept,
            "candidates": [candidate.as_dict() for candidate in self.candidates],
        }


# Of a table with a row a step.
STEP_COLUMNS = tuple(item.name for item in fields(Step) if item.name != "candidates")


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
    """A whole trace in memory: a sequence of its steps, counted from 0."""

    header: RunHeader
    steps: tuple[Step, ...]
    summary: RunSummary
    notices: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        tail, text = self.header.prompt[-30:], self.text
        shown = text if len(text) <= 60 else text[:59] + "…"
        return (
            f"Run({tail!r} → {shown!r}, {self.summary.new_tokens} tokens, seed {self.header.seed})"
        )

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, index: int | slice) -> Step | tuple[Step, ...]:
        return self.steps[index]

    def __bool__(self) -> bool:
        """A run without steps is a run too."""
        return True

    @property
    def text(self) -> str:
        """The generated text."""
        return self.summary.text

    def flat(self) -> list[dict[str, Any]]:
        """One record a step, without the candidates."""
        return [{name: getattr(step, name) for name in STEP_COLUMNS} for step in self.steps]

    def as_dicts(self) -> list[dict[str, Any]]:
        """The trace's records in order, as they stand in a JSONL file."""
        return [
            self.header.as_dict(),
            *(step.as_dict() for step in self.steps),
            self.summary.as_dict(),
        ]


def perplexity(mean_logprob: float | None) -> float | None:
    """exp(−mean logprob); None when there is none or it is beyond a float."""
    if mean_logprob is None or mean_logprob < -700:
        return None
    return math.exp(-mean_logprob)
