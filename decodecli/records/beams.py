"""What a beam search leaves behind: at every step the continuations it considered, in the end hypotheses.

A trace of one has the header of a run, a `beam_step` for each step, and a summary with `hypotheses`.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from decodecli.records.display import Displayed, continuation_repr, field_values
from decodecli.records.run import RunHeader, RunSummary

LIVE, FINISHED, PRUNED = "live", "finished", "pruned"


@dataclass(frozen=True, slots=True)
class Continuation:
    """One beam of the step before and a token that it may go on with.

    parent: the beam, from 0. logprob: the token's under the model, at temperature 1. score: the sum of
    the log probabilities that the search adds up, after penalties and, where it samples, temperature and
    filters. normalized: score / length ** length_penalty. fate: "live", and then `beam` is its number in
    the next step, "finished", or "pruned".
    """

    parent: int
    token_id: int
    token: str
    logprob: float
    score: float
    normalized: float
    fate: str
    beam: int | None

    def as_dict(self) -> dict[str, Any]:
        return field_values(self)


@dataclass(frozen=True, slots=True)
class BeamStep:
    """The continuations that a step considered, in the order in which the search took them.

    finished: how many hypotheses have ended so far and are kept; `best` is the best one's score.
    """

    index: int
    continuations: tuple[Continuation, ...]
    finished: int
    best: float | None

    @property
    def live(self) -> list[Continuation]:
        """The beams that go on, by their numbers."""
        rows = [row for row in self.continuations if row.beam is not None]
        return sorted(rows, key=lambda row: row.beam or 0)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `{"type": "beam_step", ...}`."""
        rows = [row.as_dict() for row in self.continuations]
        return {"type": "beam_step", **field_values(self), "continuations": rows}


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A text that a search came to. score: by which they are ranked, normalised by the length.
    mean_logprob: of its tokens under the model at temperature 1."""

    score: float
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str
    finish_reason: str
    mean_logprob: float

    def as_dict(self) -> dict[str, Any]:
        return field_values(self)


@dataclass(frozen=True)
class BeamRun(Displayed):
    """A beam search in memory: a sequence of its steps, and its hypotheses, the best first."""

    header: RunHeader
    steps: tuple[BeamStep, ...]
    hypotheses: tuple[Hypothesis, ...]
    summary: RunSummary

    def __repr__(self) -> str:
        texts = continuation_repr(self.header.prompt, self.text)
        return f"BeamRun({texts}, {self.header.params['num_beams']} beams)"

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[BeamStep]:
        return iter(self.steps)

    def __getitem__(self, index: int) -> BeamStep:
        return self.steps[index]

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    @property
    def text(self) -> str:
        """Of the best hypothesis."""
        return self.summary.text

    def flat(self) -> list[dict[str, Any]]:
        """One record a hypothesis."""
        return [hypothesis.as_dict() for hypothesis in self.hypotheses]

    def as_dicts(self) -> list[dict[str, Any]]:
        """The trace's records in order, as they stand in a JSONL file."""
        return [
            self.header.as_dict(),
            *(step.as_dict() for step in self.steps),
            summary_dict(self.summary, self.hypotheses),
        ]


def summary_dict(summary: RunSummary, hypotheses: tuple[Hypothesis, ...]) -> dict[str, Any]:
    """The JSON form of a search's summary: a run's, of the best hypothesis, and all of them."""
    return {**summary.as_dict(), "hypotheses": [row.as_dict() for row in hypotheses]}


@dataclass
class Node:
    """A piece of the tree of what a search carried on: tokens without a fork.

    score: the normalised score of its last token; fate: of its last token, "live" where others follow.
    """

    tokens: list[str]
    score: float
    fate: str
    children: list[Node]


def beam_tree(steps: Sequence[BeamStep]) -> Node:
    """All texts that were live or ended, common beginnings once. A beam that none goes on from is
    "pruned", but for those of the last step."""
    root = Node([], 0.0, LIVE, [])
    beams = {0: root}
    for step in steps:
        following: dict[int, Node] = {}
        for row in step.continuations:
            if row.fate != PRUNED:
                node = Node([row.token], row.normalized, row.fate, [])
                beams[row.parent].children.append(node)
                if row.beam is not None:
                    following[row.beam] = node
        for node in beams.values():
            if not node.children and node.fate == LIVE:
                node.fate = PRUNED
        beams = following
    return _joined(root)


def _joined(root: Node) -> Node:
    """The tree with runs of single children as one node each."""
    stack = [root]
    while stack:
        node = stack.pop()
        while len(node.children) == 1 and node is not root:
            (child,) = node.children
            node.tokens += child.tokens
            node.score, node.fate, node.children = child.score, child.fate, child.children
        stack += node.children
    return root
