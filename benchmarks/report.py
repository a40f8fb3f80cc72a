"""What a benchmark found: rows with their targets, and the machine. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from decodecli.analysis.timing import Samples

SCHEMA = 1


@dataclass(frozen=True)
class Target:
    """A bound that a figure should keep: "≥ 1.1" or "≤ 0.15"."""

    sign: str
    bound: float

    def __post_init__(self) -> None:
        if self.sign not in ("≥", "≤"):
            raise ValueError(f"a target is ≥ or ≤, not {self.sign}")

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"

    def holds(self, figure: float) -> bool:
        """Whether the figure keeps the bound."""
        return figure >= self.bound if self.sign == "≥" else figure <= self.bound


def at_least(bound: float) -> Target:
    return Target("≥", bound)


def at_most(bound: float) -> Target:
    return Target("≤", bound)


@dataclass(frozen=True)
class Row:
    """One comparison, or one figure of ours alone when there is no peer.

    section, subject: which part of the benchmark, on which model.
    what, peer: the two sides in words; peer is "" for a figure of ours alone.
    unit: of both sides: "tokens/s", "s", "ms", "GB/s", "bytes/step" or "a step".
    target: the bound for the figure; None where there is none.
    note: how to read the row.
    skipped: why nothing was measured, "" where something was.
    """

    section: str
    subject: str
    what: str
    peer: str = ""
    unit: str = ""
    ours: Samples | None = None
    theirs: Samples | None = None
    target: Target | None = None
    note: str = ""
    skipped: str = ""

    @property
    def ratio(self) -> Samples | None:
        """Ours by theirs, repetition by repetition: neighbours in time, so that a machine that slows
        down on the way slows both; None without both."""
        if self.ours is None or self.theirs is None:
            return None
        pairs = zip(self.ours.values, self.theirs.values, strict=True)
        return Samples(tuple(ours / theirs for ours, theirs in pairs))

    @property
    def figure(self) -> Samples | None:
        """What the target is about: the ratio, or the figure of ours where there is no peer."""
        return self.ratio or self.ours

    @property
    def holds(self) -> bool | None:
        """Whether the median keeps the target; None without a target or a figure."""
        if self.target is None or self.figure is None:
            return None
        return self.target.holds(self.figure.median)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; docs/BENCH.md describes it."""
        both = self.ratio
        return {
            "section": self.section,
            "subject": self.subject,
            "what": self.what,
            "peer": self.peer or None,
            "unit": self.unit or None,
            "ours": self.ours.as_dict() if self.ours else None,
            "theirs": self.theirs.as_dict() if self.theirs else None,
            "ratio": both.as_dict() if both else None,
            "target": str(self.target) if self.target else None,
            "holds": self.holds,
            "note": self.note or None,
            "skipped": self.skipped or None,
        }


def compared(
    section: str,
    subject: str,
    what: str,
    found: dict[str, Samples],
    unit: str,
    targets: dict[str, Target] | None = None,
    note: str = "",
) -> list[Row]:
    """Rows of the first side of `found` against each of the others, whose keys name the peers."""
    first, *others = found
    return [
        Row(
            section,
            subject,
            what,
            peer,
            unit,
            found[first],
            found[peer],
            (targets or {}).get(peer),
            note,
        )
        for peer in others
    ]


@dataclass
class Report:
    """Everything that one run of the benchmark found.

    command: the words that repeat it.
    machine: what it ran on, as `machine.describe` gives it.
    settings: how it was measured.
    """

    command: Sequence[str]
    machine: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    @property
    def missed(self) -> list[Row]:
        """The rows whose target does not hold."""
        return [row for row in self.rows if row.holds is False]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; docs/BENCH.md describes it."""
        import decodecli

        return {
            "type": "bench",
            "schema": SCHEMA,
            "decodecli": decodecli.__version__,
            "command": list(self.command),
            "machine": self.machine,
            "settings": self.settings,
            "rows": [_strict(row.as_dict()) for row in self.rows],
        }


def _strict(value: Any) -> Any:
    """The value without infinities, which JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return value
