"""A recorded run on its way to the screen again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from decodecli.cli.pace import Pace
from decodecli.cli.sinks import Sinks
from decodecli.errors import UsageError
from decodecli.records.run import RunHeader, RunSummary, Step, perplexity
from decodecli.records.trace import TraceReader


class TracePlayer:
    """Plays the runs of a trace into the sinks.

    chosen: which steps are shown, by index. rows: of a step's candidates, None for all.
    """

    def __init__(
        self, sinks: Sinks, pace: Pace, chosen: Callable[[int], bool], rows: int | None
    ) -> None:
        self._sinks, self._pace, self._chosen, self._rows = sinks, pace, chosen, rows
        self._header: RunHeader | None = None
        self._sample = 0
        self._open = False  # whether a run has begun and not ended
        self._ended = False  # whether a person ended it
        self._steps, self._logprobs = 0, 0.0  # of the run
        self._shown, self._longest = 0, 0  # of all runs

    def play(self, reader: TraceReader) -> None:
        """Play all of them, whatever ends it. A run without a summary gets one of the steps there are."""
        why = "interrupted"
        try:
            for record in reader:
                if isinstance(record, RunHeader):
                    self._end("the record ends here")
                    self._start(record)
                elif isinstance(record, Step):
                    if not self._step(record):
                        self._ended, why = True, "ended by q"
                        return
                else:
                    self._open = False
                    self._sinks.finish(record)
            why = "the record ends here"
        except BrokenPipeError:
            self._open = False
            raise
        finally:
            self._end(why)

    def check_shown(self, steps: str | None) -> None:
        """Refuse a choice of steps that no run has.

        Raises:
            UsageError: nothing was shown for that.
        """
        if steps is not None and not self._shown and not self._ended:
            longest = f"the longest run has {self._longest:,} steps"
            raise UsageError(f"--steps {steps}: there is no such step", longest)

    def _start(self, header: RunHeader) -> None:
        samples = header.params.get("num_samples", 1)
        before = self._header
        follows = before is not None and (before.seed + 1, before.prompt_ids, samples) == (
            header.seed, header.prompt_ids, before.params.get("num_samples", 1),
        )  # fmt: skip
        self._sample = self._sample + 1 if follows and self._sample < samples else 1
        self._header, self._open = header, True
        self._steps, self._logprobs = 0, 0.0
        self._sinks.start(header, (self._sample, samples))

    def _step(self, step: Step) -> bool:
        """Show a step when it is its turn; False when a person ends it."""
        if self._chosen(step.index):
            if self._shown and not self._sinks.folded and not self._pace.wait():
                return False
            self._shown += 1
        self._steps += 1
        self._longest = max(self._longest, step.index + 1)
        self._logprobs += step.logprob
        if self._rows is not None:
            kept = (
                row
                for number, row in enumerate(step.candidates)
                if number < self._rows or row.token_id == step.token_id
            )
            step = replace(step, candidates=tuple(kept))
        self._sinks.step(step)
        return True

    def _end(self, why: str) -> None:
        if self._open and self._header is not None:
            self._open = False
            self._sinks.finish(self._summary(why, self._header), recorded=False)

    def _summary(self, why: str, header: RunHeader) -> RunSummary:
        """Of the steps so far. What views do not show is left out: the text, which they have."""
        mean = self._logprobs / self._steps if self._steps else None
        return RunSummary(
            text="",
            token_ids=(),
            finish_reason=why,
            prompt_tokens=len(header.prompt_ids),
            new_tokens=self._steps,
            mean_logprob=mean,
            perplexity=perplexity(mean),
            seconds={},
            tokens_per_second=None,
        )
