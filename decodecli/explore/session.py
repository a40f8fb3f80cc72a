"""A session of `explore`: a prompt, and branches of tokens that were drawn or taken after it.

A branch is its token ids, never its text. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from decodecli.errors import UsageError
from decodecli.ranges import check_seed
from decodecli.records.field_checks import build_record
from decodecli.records.run import ModelInfo
from decodecli.settings import SamplingParams
from decodecli.sweeps.folder import write_whole
from decodecli.text_files import parse_json, read_file

SCHEMA = 1
DRAWN, GREEDY, TAKEN = "drawn", "greedy", "taken"


@dataclass(frozen=True)
class Choice:
    """One token of a branch, and how it came there.

    logprob, rank: under the model, at temperature 1. final_logprob: of the distribution that the
    settings left at the time; None where they had removed the token. how: `DRAWN` with `seed`,
    `GREEDY` or `TAKEN` by hand. params: the settings at the time, those off their default.
    """

    token_id: int
    token: str
    rank: int
    logprob: float
    final_logprob: float | None
    how: str
    seed: int | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Branch:
    """A way through the tree: its choices, and the seed that its next draw takes.

    The draw of the token at index i takes the i-th noise of the seed, as `generate --seed` does, so a
    branch that was drawn in one go has that run's ids.
    """

    choices: tuple[Choice, ...] = ()
    seed: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(choice.token_id for choice in self.choices)

    @property
    def mean_surprisal(self) -> float | None:
        """Nats a token at temperature 1; None for a branch without tokens."""
        if not self.choices:
            return None
        return -sum(choice.logprob for choice in self.choices) / len(self.choices)


@dataclass
class Session:
    """What was explored of one model from one prompt.

    model: None where numbers were given in place of one. current: the branch that is worked on.
    params: the settings of the next draw.
    """

    model: ModelInfo | None
    prompt: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    branches: list[Branch] = field(default_factory=lambda: [Branch()])
    current: int = 0
    saved: bool = True

    @property
    def branch(self) -> Branch:
        return self.branches[self.current]

    def _set(self, branch: Branch) -> None:
        self.branches[self.current] = branch
        self.saved = False

    def add(self, choice: Choice) -> None:
        """Put a token at the end of the branch."""
        self._set(replace(self.branch, choices=(*self.branch.choices, choice)))

    def undo(self) -> None:
        """Take the branch's last token away."""
        if self.branch.choices:
            self._set(replace(self.branch, choices=self.branch.choices[:-1]))

    def reseed(self) -> None:
        """Have the branch's next draw take a seed that no branch had yet."""
        self._set(replace(self.branch, seed=self._fresh_seed()))

    def open_branch(self, length: int, fresh_seed: bool = True) -> None:
        """A new branch of the first `length` tokens of this one, which becomes the current one."""
        seed = self._fresh_seed() if fresh_seed else self.branch.seed
        self.branches.append(Branch(self.branch.choices[:length], seed))
        self.current = len(self.branches) - 1
        self.saved = False

    def switch(self, step: int) -> None:
        """Go `step` branches on, around the ends."""
        self.current = (self.current + step) % len(self.branches)

    def _fresh_seed(self) -> int:
        used = {branch.seed for branch in self.branches}
        used |= {c.seed for branch in self.branches for c in branch.choices if c.seed is not None}
        return (max(used) + 1) % 2**32

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `{"type": "session", "schema": 1, ...}`."""
        return {
            "type": "session",
            "schema": SCHEMA,
            "model": None if self.model is None else asdict(self.model),
            "prompt": self.prompt,
            "prompt_ids": list(self.prompt_ids),
            "params": settings_of(self.params),
            "current": self.current,
            "branches": [asdict(branch) for branch in self.branches],
        }

    def save(self, path: str) -> None:
        """Write the session to a file, whole or not at all.

        Raises:
            WriteError: it cannot be written.
        """
        text = json.dumps(self.as_dict(), ensure_ascii=False, allow_nan=False)
        write_whole(Path(path).expanduser(), f"{text}\n".encode())
        self.saved = True


def settings_of(params: SamplingParams) -> dict[str, Any]:
    """The values that are off their default, but for the seed and the length."""
    return {
        item.name: list(value) if isinstance(value, tuple) else value
        for item in fields(SamplingParams)
        if (value := getattr(params, item.name)) != item.default
        and item.name not in ("seed", "max_new_tokens")
    }


def read_session(path: str) -> Session:
    """The session in a file.

    Raises:
        UsageError: it is not there, or is no session.
    """
    text = read_file(path, f"--session {path}").decode("utf-8", "replace")
    values = parse_json(text, path, "give a file that explore saved")
    try:
        if not isinstance(values, dict) or values.get("type") != "session":
            raise ValueError("it is not a session")
        if values.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        model = values["model"]
        branches = [_branch(branch) for branch in values["branches"]]
        if not branches:
            raise ValueError("it has no branches")
        current = values["current"]
        if type(current) is not int or not 0 <= current < len(branches):
            raise ValueError("its current branch is not there")
        if not isinstance(values["prompt"], str):
            raise ValueError("its prompt is no text")
        return Session(
            model=None if model is None else build_record(ModelInfo, model),
            prompt=values["prompt"],
            prompt_ids=_ids(values["prompt_ids"]),
            params=SamplingParams(**values["params"]),
            branches=branches,
            current=current,
        )
    except (ValueError, KeyError, TypeError, UsageError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{path} cannot be opened: {what}", "give a file that explore saved with s"
        ) from None


def _branch(values: Any) -> Branch:
    choices = tuple(build_record(Choice, choice) for choice in values["choices"])
    for choice in choices:
        SamplingParams(**choice.params)
        if choice.how not in (DRAWN, GREEDY, TAKEN):
            raise ValueError(f"a token cannot be {choice.how!r}")
    return Branch(choices, check_seed(values["seed"]))


def _ids(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(v) is int and v >= 0 for v in values):
        raise ValueError("its prompt_ids are not token ids")
    return tuple(values)


@dataclass
class Node:
    """A place in the tree of all branches: the tokens up to the next fork.

    branches: the numbers of those that end here.
    """

    choices: tuple[Choice, ...]
    branches: list[int] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)


def tree(branches: Iterable[Branch]) -> Node:
    """All branches as one tree, common beginnings once, runs of tokens without a fork in one node."""
    return _node(list(enumerate(branches)), 0)


def _node(branches: list[tuple[int, Branch]], start: int) -> Node:
    end = start
    while all(len(b.choices) > end for _, b in branches):
        if len({b.choices[end].token_id for _, b in branches}) > 1:
            break
        end += 1
    node = Node(branches[0][1].choices[start:end])
    below: dict[int, list[tuple[int, Branch]]] = {}
    for number, branch in branches:
        if len(branch.choices) == end:
            node.branches.append(number)
        else:
            below.setdefault(branch.choices[end].token_id, []).append((number, branch))
    node.children = [_node(group, end) for group in below.values()]
    return node
