"""A sweep's cells on this machine: from a loaded model to a record a cell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from statistics import fmean
from typing import Any

from decodecli.decoding.batch import Batch, Request, RequestOutput
from decodecli.decoding.prompt import PrefilledPrompt, prefill
from decodecli.errors import DecodecliError, PromptError
from decodecli.models.loading import LanguageModel
from decodecli.records.json_lines import step_json_line, to_json_line
from decodecli.records.sweep import CellRecord
from decodecli.stages import COMPANIONS, WITH_HISTORY
from decodecli.sweeps.cells import Cell, CellResult, cell_record

BATCH_SIZE = 16
_AT_ONCE = 64  # results without decoding that are handed over together
_PREFIXES = 8  # prompts kept ready; cells of one prompt follow one another
_DIGITS = 6  # of a logprob in a file
# What matters where the most probable token is taken: not the seed, and no filter.
_GREEDY_OPTIONS = (
    "max_new_tokens", "stop", "order", *sorted(WITH_HISTORY),
    *sorted({name for stage in WITH_HISTORY for name in COMPANIONS.get(stage, ())}),
)  # fmt: skip


def run_cells(
    lm: LanguageModel,
    cells: Iterable[Cell | None],
    *,
    batch_size: int = BATCH_SIZE,
    exact: bool = False,
    traces: bool = False,
    candidates: int = 10,
    on_tokens: Callable[[int], None] | None = None,
) -> Iterator[CellResult]:
    """Decode `cells`, `batch_size` of them at once, and yield each as it ends, in no set order.

    A cell's tokens are those of `decodecli generate` alone: with `exact` by construction, without it
    as `decoding.batch` says. Cells of one prompt should follow one another: it is then run through the
    model once. Greedy cells that differ only in seed or filters are decoded once. A cell that cannot be
    decoded ends as an error, and the others go on.

    Args:
        cells: a None among them says that there is none just now, though more may come.
        traces: whether results carry their trace, each step with `candidates` rows.
        on_tokens: called with the number of tokens that were added.

    Raises:
        DecodeError: memory ran out.
    """

    @lru_cache(_PREFIXES)
    def prefilled(*prompt: Any) -> PrefilledPrompt | PromptError:
        try:
            return prefill(lm, *prompt)
        except PromptError as error:
            return error

    batch = Batch(
        lm,
        batch_size,
        candidates=candidates if traces else None,
        exact=exact,
        on_tokens=on_tokens,
    )
    ready: deque[CellResult] = deque()  # what needs no decoding
    greedy = _Greedy(traces)

    def requests() -> Iterator[Request | None]:
        for cell in cells:
            if cell is None:
                yield None
                continue
            if greedy.takes(cell, ready):
                if len(ready) >= _AT_ONCE:
                    yield None
                continue
            chat = cell.prompt.chat
            prefix = prefilled(cell.prompt.text, cell.bos, chat)
            if isinstance(prefix, PromptError):
                ready.append(CellResult(cell_record(cell, error=str(prefix))))
                ready.extend(greedy.settled(cell, ready[-1].record))
                yield None
            else:
                settings = {"bos": cell.bos, **(chat.as_dict() if chat else {})}
                yield Request(cell, prefix, cell.params, settings)

    for done in batch(requests()):
        while ready:
            yield ready.popleft()
        if done is None:
            continue
        result = _result(done, traces)
        yield result
        yield from greedy.settled(done.request.key, result.record)
    yield from ready


class _Greedy:
    """Greedy cells that differ in nothing that greedy decoding looks at: one is decoded, and the others
    have its tokens."""

    def __init__(self, traces: bool) -> None:
        self._off = traces  # a trace has its own seed in the header
        self._waiting: dict[tuple[Any, ...], list[Cell]] = {}
        self._known: dict[tuple[Any, ...], CellRecord] = {}  # of the last keys

    def takes(self, cell: Cell, ready: deque[CellResult]) -> bool:
        """Whether `cell` is one that is under way or done already; in the latter case it is `ready`."""
        key = self._key(cell)
        if key in self._known:
            ready.append(_copied(self._known[key], cell))
        elif key in self._waiting:
            self._waiting[key].append(cell)
        else:
            if key:
                self._waiting[key] = []
            return False
        return True

    def settled(self, cell: Cell, record: CellRecord) -> Iterator[CellResult]:
        """Those that waited for `cell`."""
        key = self._key(cell)
        if not key:
            return
        self._known[key] = record
        if len(self._known) > _PREFIXES:
            del self._known[next(iter(self._known))]
        for other in self._waiting.pop(key, ()):
            yield _copied(record, other)

    def _key(self, cell: Cell) -> tuple[Any, ...]:
        """What a greedy cell's tokens depend on; () for others."""
        if self._off or not cell.params.greedy:
            return ()
        return cell.prompt, cell.bos, *(getattr(cell.params, name) for name in _GREEDY_OPTIONS)


def _copied(record: CellRecord, cell: Cell) -> CellResult:
    params = {**record.params, **cell.params.as_dict()}
    return CellResult(replace(record, index=cell.index, params=params))


def _result(done: RequestOutput, traces: bool) -> CellResult:
    cell: Cell = done.request.key
    summary, error, correct = done.summary, done.error, None
    prefix: PrefilledPrompt = done.request.prompt
    if error is None:
        try:
            correct = cell.prompt.answered_by(summary.text)
        except DecodecliError as slow:  # "the prompt …": it would be so again
            error = DecodecliError(f"the prompt expects what cannot be looked for: {slow.message}")
    bos = cell.bos  # whether the text begins with BOS
    if bos is None:
        bos = prefix.ids[:1] == (prefix.lm.bos_id,)
        if not bos and prefix.lm.codec.num_special_tokens_to_add():
            bos = None  # the tokenizer adds other tokens
    record = cell_record(
        cell,
        bos,
        error=None if error is None else str(error),
        eos_ids=prefix.lm.eos_ids,
        text=summary.text,
        token_ids=summary.token_ids,
        finish_reason=summary.finish_reason,
        prompt_tokens=summary.prompt_tokens,
        new_tokens=summary.new_tokens,
        mean_logprob=summary.mean_logprob,
        perplexity=summary.perplexity,
        mean_entropy=fmean(done.entropies) if done.entropies else None,
        correct=correct,
        segments=done.segments,
        logprobs=tuple(round(value, _DIGITS) for value in done.logprobs),
    )
    if not traces:
        return CellResult(record)
    steps = map(step_json_line, done.steps)
    header, end = to_json_line(done.header.as_dict()), to_json_line(summary.as_dict())
    return CellResult(record, (header, *steps, end))
