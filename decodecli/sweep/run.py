"""A sweep's cells on this machine: from a loaded model to a record a cell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from statistics import fmean

from decodecli.analysis.text_metrics import cell_numbers
from decodecli.engine.batch import Batch, Done, Job
from decodecli.engine.decode import Prefix, prefill
from decodecli.engine.loading import LanguageModel
from decodecli.errors import PromptError
from decodecli.records import step_json_line, to_json_line
from decodecli.sweep.cells import Cell
from decodecli.sweep.outcomes import Outcome, failed_cell, params_of
from decodecli.sweep_reports import CellRecord

BATCH_SIZE = 16
_PREFIXES = 8  # prompts kept ready; cells of one prompt follow one another
_DIGITS = 6  # of a logprob in a file


def run_cells(
    lm: LanguageModel,
    cells: Iterable[Cell],
    *,
    batch_size: int = BATCH_SIZE,
    exact: bool = False,
    traces: bool = False,
    candidates: int = 10,
    on_tokens: Callable[[int], None] | None = None,
) -> Iterator[Outcome]:
    """Decode `cells`, `batch_size` of them at once, and yield each as it ends, in no set order.

    A cell's tokens are those of `decodecli generate` alone: with `exact` by construction, without it
    as `engine.batch` says. Cells of one prompt should follow one another: it is then run through the
    model once. A cell that cannot be decoded ends as an error, and the others go on.

    Args:
        traces: whether outcomes carry their trace, each step with `candidates` rows.
        on_tokens: called with the number of tokens that were added.

    Raises:
        DecodeError: memory ran out.
    """
    prompts = _Prompts(lm)
    batch = Batch(
        lm,
        batch_size,
        candidates=candidates if traces else None,
        exact=exact,
        on_tokens=on_tokens,
    )
    refused: list[Outcome] = []

    def jobs() -> Iterator[Job]:
        for cell in cells:
            try:
                prefix = prompts.prefilled(cell)
            except PromptError as error:
                refused.append(Outcome(failed_cell(cell, str(error))))
            else:
                yield Job(cell, prefix, cell.params, {"bos": cell.bos})

    for done in batch(jobs()):
        while refused:
            yield refused.pop(0)
        yield Outcome(_record(done), _trace(done) if traces else None)
    yield from refused


class _Prompts:
    """Prompts that have been run through the model, the last used of them kept."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._kept: OrderedDict[tuple[str, bool | None], Prefix] = OrderedDict()

    def prefilled(self, cell: Cell) -> Prefix:
        key = cell.prompt.text, cell.bos
        if key not in self._kept:
            self._kept[key] = prefill(self._lm, *key)
            if len(self._kept) > _PREFIXES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _record(done: Done) -> CellRecord:
    cell: Cell = done.job.key
    summary = done.summary
    return CellRecord(
        index=cell.index,
        prompt_id=cell.prompt.id,
        task=cell.prompt.task,
        prompt=cell.prompt.text,
        params=params_of(cell.params, cell.bos),
        text=summary.text,
        token_ids=summary.token_ids,
        finish_reason=summary.finish_reason,
        prompt_tokens=summary.prompt_tokens,
        new_tokens=summary.new_tokens,
        mean_logprob=summary.mean_logprob,
        perplexity=summary.perplexity,
        mean_entropy=fmean(done.entropies) if done.entropies else None,
        **cell_numbers(summary.token_ids, done.job.prefix.lm.eos_ids),
        correct=cell.prompt.answered_by(summary.text),
        segments=done.segments,
        logprobs=tuple(round(value, _DIGITS) for value in done.logprobs),
        error=None if done.error is None else str(done.error),
    )


def _trace(done: Done) -> tuple[str, ...]:
    steps = (step_json_line(step) for step in done.steps)
    return to_json_line(done.header.as_dict()), *steps, to_json_line(done.summary.as_dict())
