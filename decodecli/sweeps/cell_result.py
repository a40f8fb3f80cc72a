"""What an engine hands over when a cell has ended."""

from __future__ import annotations

from dataclasses import dataclass

from decodecli.analysis.text_metrics import cell_numbers
from decodecli.records.sweep import CellRecord
from decodecli.sweeps.cells import Cell


@dataclass(frozen=True, slots=True)
class CellResult:
    """A finished cell. `trace`: the JSONL lines of its run, without line ends, where they were asked
    for."""

    record: CellRecord
    trace: tuple[str, ...] | None = None


def failed_cell(cell: Cell, error: str) -> CellRecord:
    """The record of a cell that could not be begun, or whose beginning is lost."""
    return CellRecord(
        index=cell.index,
        prompt_id=cell.prompt.id,
        task=cell.prompt.task,
        prompt=cell.prompt.text,
        params=params_of(cell, cell.bos),
        text="",
        token_ids=(),
        finish_reason="error",
        prompt_tokens=0,
        new_tokens=0,
        mean_logprob=None,
        perplexity=None,
        mean_entropy=None,
        **cell_numbers(()),
        correct=None,
        segments=(),
        logprobs=(),
        error=error,
    )


def never_succeeds(record: CellRecord) -> bool:
    """Whether a cell that failed would fail again: its prompt is none for this model."""
    return record.error is not None and record.error.startswith("the prompt ")


def params_of(cell: Cell, bos: bool | None) -> dict[str, object]:
    """Every effective decoding value by its name, as a record has them; `bos` is None where a model's
    tokenizer is not known to add one."""
    chat = cell.prompt.chat
    return {**cell.params.as_dict(), "bos": bos, **(chat.as_dict() if chat else {})}
