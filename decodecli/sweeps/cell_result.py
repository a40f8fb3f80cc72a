"""What an engine hands over when a cell has ended."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from decodecli.analysis.text_metrics import cell_numbers
from decodecli.records.sweep import CellRecord
from decodecli.sweeps.cells import Cell


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
