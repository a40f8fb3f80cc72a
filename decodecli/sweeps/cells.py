"""One cell of a sweep: the prompt it starts from, its setting, and what an engine makes of it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from decodecli.records.sweep import CellRecord
from decodecli.regex_limit import matches
from decodecli.settings import ChatParams, SamplingParams


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to continue.

    id: what names it in files and tables.
    expect: a right answer contains one of these strings, or matches the pattern; None: no answer is
        right or wrong.
    task: the group of prompts it belongs to, or None.
    chat: how it goes through the model's chat template; None where it does not.
    """

    text: str
    id: str
    expect: tuple[str, ...] | re.Pattern[str] | None = None
    task: str | None = None
    chat: ChatParams | None = None

    def as_dict(self) -> dict[str, Any]:
        """The prompt as a grid file and a JSONL file have it."""
        entry: dict[str, Any] = {"prompt": self.text, "id": self.id}
        if isinstance(self.expect, re.Pattern):
            entry["expect"] = {"regex": self.expect.pattern}
        elif self.expect is not None:
            entry["expect"] = list(self.expect)
        return entry if self.task is None else {**entry, "task": self.task}

    def answered_by(self, text: str) -> bool | None:
        """Whether `text` holds what is expected; None when nothing is.

        Raises:
            DecodecliError: the pattern takes too long.
        """
        if self.expect is None:
            return None
        if isinstance(self.expect, re.Pattern):
            return matches(self.expect, text)
        return any(expected in text for expected in self.expect)


@dataclass(frozen=True, slots=True)
class Cell:
    """One prompt at one setting with one seed.

    index: its number in the grid. params: with an integer seed. bos: as for `prefill`.
    """

    index: int
    prompt: Prompt
    params: SamplingParams
    bos: bool | None = None

    def value(self, name: str) -> Any:
        """The value of a decoding option; `bos` is one here."""
        return self.bos if name == "bos" else getattr(self.params, name)


@dataclass(frozen=True, slots=True)
class CellResult:
    """A cell that ended. trace: the JSONL lines of its run, without line ends, where they are kept."""

    record: CellRecord
    trace: tuple[str, ...] | None = None


def cell_record(
    cell: Cell,
    bos: bool | None = None,
    *,
    error: str | None,
    eos_ids: Collection[int] = (),
    **decoded: Any,
) -> CellRecord:
    """The record of a cell, with every effective decoding value by its name.

    Args:
        bos: whether a BOS token was put in front; None where that is not known.
        error: why it failed, None where it did not.
        eos_ids: of the model, as for `cell_numbers`.
        decoded: fields of `CellRecord`; none for a cell that could not be begun.
    """
    from decodecli.analysis.text_metrics import cell_numbers  # which imports numpy

    chat = cell.prompt.chat.as_dict() if cell.prompt.chat else {}
    nothing = {"text": "", "token_ids": (), "segments": (), "logprobs": (), "correct": None}
    counts = dict.fromkeys(("prompt_tokens", "new_tokens"), 0)
    means = dict.fromkeys(("mean_logprob", "perplexity", "mean_entropy"))
    values = {**nothing, **counts, **means, **decoded}
    if error is not None:
        values["finish_reason"] = "error"
    return CellRecord(
        index=cell.index,
        prompt_id=cell.prompt.id,
        task=cell.prompt.task,
        prompt=cell.prompt.text,
        params={**cell.params.as_dict(), "bos": cell.bos if bos is None else bos, **chat},
        **cell_numbers(values["token_ids"], eos_ids),
        **values,
        error=error,
    )


def never_succeeds(record: CellRecord) -> bool:
    """Whether a cell that failed would fail again: its prompt is none for this model."""
    return record.error is not None and record.error.startswith("the prompt ")
