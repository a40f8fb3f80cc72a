"""A recorded run made again, to see whether its ids and numbers still hold."""

from __future__ import annotations

from collections.abc import Iterator

from decodecli.decoding.decode import Decoding, library_versions
from decodecli.decoding.prompt import prefill
from decodecli.models.loading import LanguageModel
from decodecli.records.run import RunHeader, Step
from decodecli.records.trace import sampling_params

# In nats and logits: how far numbers may be off, in float32 and in 16 bits or fewer.
TOLERANCES = {"float32": 1e-3}
COARSE = 0.05
_NUMBERS = (
    "logit", "logprob", "tempered_logprob", "final_logprob", "entropy", "final_entropy"
)  # fmt: skip


class Verification:
    """Compares the steps of one recorded run, in order, with those that its model makes now.

    divergence: the first step at which another token was drawn: its index, the token recorded, the token
    now. difference, where: the largest between two numbers before it, and which number that is.
    """

    def __init__(self, header: RunHeader, lm: LanguageModel) -> None:
        self.header, self._lm, self.steps = header, lm, 0
        self.divergence: tuple[int, str, str] | None = None
        self.difference, self.where = 0.0, ""
        self.tolerance = TOLERANCES.get(lm.info.dtype, COARSE)
        self._now: Iterator[Step] | None = None

    def compare(self, step: Step) -> None:
        """The next recorded step."""
        if self.divergence is not None:
            return
        if self._now is None:
            self._now = self._run(step)
        now = next(self._now, None)
        self.steps += 1
        if now is None or now.token_id != step.token_id:
            self.divergence = step.index, step.token, now.token if now else "(the end)"
            return
        for name in _NUMBERS:
            self._note(getattr(step, name), getattr(now, name), f"{name} at #{step.index + 1}")
        rows = {row.token_id: row for row in now.candidates}
        for row in step.candidates:
            if row.token_id in rows:
                place = f"{row.token!r} at #{step.index + 1}"
                self._note(row.logit, rows[row.token_id].logit, f"logit of {place}")

    def _run(self, first: Step) -> Iterator[Step]:
        header = self.header
        params = sampling_params(header)
        listed = sum(row.rank <= len(first.candidates) for row in first.candidates)
        prefix = prefill(self._lm, header.prompt_ids)
        decoding = Decoding(
            prefix, params, seed=header.seed, candidates=max(listed, 1), shared=False
        )
        return iter(decoding)

    def _note(self, recorded: float, now: float, where: str) -> None:
        if recorded < -1e300:  # of a token that was taken although it was removed
            return
        difference = abs(recorded - now)
        if difference > self.difference:
            self.difference, self.where = difference, where

    @property
    def holds(self) -> bool:
        return self.divergence is None and self.difference <= self.tolerance

    @property
    def other_versions(self) -> str:
        """Versions that differ from those that recorded the run: `torch 2.12.0, now 2.13.0`."""
        now = library_versions()
        return "; ".join(
            f"{name} {version}, now {now[name]}"
            for name, version in self.header.versions.items()
            if now.get(name, version) != version
        )
