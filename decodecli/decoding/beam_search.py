"""Beam search and beam sampling, step by step, with the arithmetic of transformers' `generate`.

All beams have the same length, so they are the rows of one cache, which is put in the order of the
parents at every step. Scores are float32 sums of log probabilities: log_softmax of the logits, through
the penalties and, where beams are sampled, through temperature and filters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from decodecli.decoding.decode import Decoding
from decodecli.decoding.prompt import PrefilledPrompt, out_of_memory_guard
from decodecli.errors import DecodeError, UsageError
from decodecli.models.detokenize import token_texts
from decodecli.records.beams import (
    FINISHED,
    LIVE,
    PRUNED,
    BeamRun,
    BeamStep,
    Continuation,
    Hypothesis,
)
from decodecli.records.run import RunSummary
from decodecli.sampling.chain import Chain
from decodecli.sampling.noise import ExponentialNoise
from decodecli.settings import BeamParams, SamplingParams

_NEVER = -1e9  # the score of what must not be taken


class BeamSearch:
    """One search: iterate for its steps, then ask for its `hypotheses` and its `summary()`.

    Without `beams.beam_sample` temperature and filters do nothing, as in transformers. With it, a step
    draws several continuations without replacement, with exponential noise of the seeded generator.

    Raises:
        UsageError: stages or stop strings that belong to a single sequence.
    """

    def __init__(
        self,
        prompt: PrefilledPrompt,
        params: SamplingParams,
        beams: BeamParams,
        *,
        seed: int | None = None,
        sources: Mapping[str, str] | None = None,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        check_beams(params, beams)
        self.prompt, self.lm, self.beams = prompt, prompt.lm, beams
        recorded = {**(recorded or {}), **asdict(beams)}
        greedy = params if beams.beam_sample else replace(params, temperature=0.0)
        self._run = Decoding(prompt, greedy, seed=seed, sources=sources, recorded=recorded)
        self.header = self._run.header
        self._eos = torch.tensor(sorted(self.lm.eos_ids), dtype=torch.long)
        self._chain = Chain(
            greedy,
            context=self._run.chain.context,
            min_tokens_to_keep=max(len(self._eos), 1) + 1 if beams.beam_sample else 1,
        )
        self._most = self._run.max_new_tokens
        self.hypotheses: tuple[Hypothesis, ...] = ()
        self.interrupted = False
        self._summary: RunSummary | None = None

    def interrupt(self) -> None:
        """End the search after the step that is under way."""
        self.interrupted = True

    @torch.inference_mode()
    def __iter__(self) -> Iterator[BeamStep]:
        with out_of_memory_guard(self.lm):
            start = time.perf_counter()
            for step in self._search():
                self._run.seconds += time.perf_counter() - start
                yield step
                start = time.perf_counter()

    def _search(self) -> Iterator[BeamStep]:
        beams, count, prompt = self.beams, self.beams.num_beams, self.prompt
        runner, device = prompt.runner.fork(), prompt.logits.device
        vocab = prompt.logits.shape[-1]
        considered = max(2, 1 + len(self._eos)) * count
        if considered > count * vocab:
            raise DecodeError(f"{count} beams are too many for {vocab} tokens", "ask for fewer")
        noise = (
            ExponentialNoise(self._run.seed, count * vocab, device) if beams.beam_sample else None
        )
        eos, places = self._eos.to(device), torch.arange(considered, device=device)
        # Only the first of equal beams counts in the first step.
        scores = torch.full((count,), _NEVER, device=device)
        scores[0] = 0.0
        sequences = torch.tensor([prompt.ids], device=device).expand(count, -1)
        logits = prompt.logits.expand(count, -1)
        ended_scores = torch.full((count,), _NEVER, device=device)
        ended: list[tuple[int, ...] | None] = [None] * count
        logprobs: dict[tuple[int, ...], float] = {(): 0.0}  # sums over the model's own, by tokens
        may_improve, index = True, 0
        while True:
            if not bool(torch.isfinite(logits).all()):
                raise DecodeError(
                    f"the logits of step {index} are not finite", "try --dtype float32"
                )
            raw = logits.log_softmax(-1)
            total = self._chain(raw, sequences).scores + scores[:, None]
            top, flat = _take(total.view(-1), considered, noise)
            parents, tokens, length = flat // vocab, flat % vocab, index + 1
            hits = torch.isin(tokens, eos) | (length >= self._most)
            running = top + hits.float() * _NEVER
            chosen = running.topk(count).indices
            # Of those that end here, only the first ones may be hypotheses.
            normalized = top / length**beams.length_penalty
            is_full = all(text is not None for text in ended) and beams.early_stopping == "true"
            counts = hits & (places < count)
            candidates = normalized + (~counts).float() * _NEVER
            candidates += _NEVER * (is_full + (not may_improve))
            merged = torch.cat((ended_scores, candidates))
            best = merged.topk(count).indices
            texts = [
                (*sequences[parent, len(prompt.ids) :].tolist(), token)
                for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True)
            ]
            both = [
                *ended,
                *(text if c else None for text, c in zip(texts, counts.tolist(), strict=True)),
            ]
            ended_scores, ended = merged[best], [both[k] for k in best.tolist()]
            step = self._step(index, raw, top, normalized, parents, tokens, chosen, best)
            for text, row in zip(texts, step.continuations, strict=True):
                logprobs[text] = logprobs[text[:-1]] + row.logprob
            known = [s for s, t in zip(ended_scores.tolist(), ended, strict=True) if t is not None]
            yield replace(step, finished=len(known), best=max(known, default=None))
            scores, parents, index = running[chosen], parents[chosen], index + 1
            sequences = torch.cat((sequences[parents], tokens[chosen][:, None]), 1)
            may_improve = may_improve and self._may_improve(index, scores, ended_scores, ended)
            all_ended = all(text is not None for text in ended) and beams.early_stopping == "true"
            if self.interrupted and not known:  # the beams as they stand
                ended = [tuple(ids) for ids in sequences[:, len(prompt.ids) :].tolist()]
                ended_scores = scores / index**beams.length_penalty
            if self.interrupted or not may_improve or all_ended or bool(hits.all()):
                break
            logits = runner.step_rows(parents, sequences)
        self._finish(ended_scores.tolist(), ended, logprobs)

    def _may_improve(
        self,
        length: int,
        scores: Tensor,
        ended_scores: Tensor,
        ended: list[tuple[int, ...] | None],
    ) -> bool:
        """Whether the best beam can still come before the last hypothesis, by transformers' estimate."""
        penalty = self.beams.length_penalty
        if self.beams.early_stopping == "never" and penalty > 0:
            length = self._most
        possible = scores[0] / length**penalty
        worst = ended_scores.min()
        return any(bool(possible > (worst if text is not None else _NEVER)) for text in ended)

    def _step(
        self,
        index: int,
        raw: Tensor,
        top: Tensor,
        normalized: Tensor,
        parents: Tensor,
        tokens: Tensor,
        chosen: Tensor,
        best: Tensor,
    ) -> BeamStep:
        count = self.beams.num_beams
        live = {place: beam for beam, place in enumerate(chosen.tolist())}
        ended = {place - count for place in best.tolist() if place >= count}
        eos = set(self._eos.tolist())
        is_last = index + 1 >= self._most
        columns = zip(
            parents.tolist(),
            tokens.tolist(),
            raw[parents, tokens].tolist(),
            top.tolist(),
            normalized.tolist(),
            strict=True,
        )
        rows: list[Continuation] = []
        for place, (parent, token, logprob, score, ratio) in enumerate(columns):
            hits = token in eos or is_last
            ends = hits and place in ended and place < count
            fate = FINISHED if ends else LIVE if place in live and not hits else PRUNED
            beam = live[place] if fate == LIVE else None
            rows.append(
                Continuation(
                    parent, token, self.lm.piece(token), max(logprob, -1e308), max(score, -1e308),
                    max(ratio, -1e308), fate, beam,
                )
            )  # fmt: skip
        return BeamStep(index, tuple(rows), 0, None)

    def _finish(
        self,
        scores: list[float],
        ended: list[tuple[int, ...] | None],
        logprobs: Mapping[tuple[int, ...], float],
    ) -> None:
        rows: list[Hypothesis] = []
        for score, ids in zip(scores, ended, strict=True):
            if ids is not None and len(rows) < self.beams.num_return_sequences:
                text = "".join(token_texts(self.lm.codec, ids, self.prompt.ids))
                pieces = tuple(map(self.lm.piece, ids))
                reason = "stop" if ids[-1] in self.lm.eos_ids else "length"
                reason = "interrupted" if self.interrupted and reason != "stop" else reason
                mean = logprobs[ids] / len(ids)
                rows.append(Hypothesis(score, ids, pieces, text, reason, mean))
        self.hypotheses = tuple(rows)

    def summary(self) -> RunSummary:
        """Of the best hypothesis, as of a run."""
        if self._summary is None:
            for hypothesis in self.hypotheses[:1]:
                for token in hypothesis.token_ids:
                    self._run.add_token(token, hypothesis.mean_logprob)
                self._run.finish_reason = hypothesis.finish_reason
            self._summary = self._run.summary()
        return self._summary

    def run(self) -> BeamRun:
        """The whole search, made to its end."""
        steps = tuple(self)
        return BeamRun(self.header, steps, self.hypotheses, self.summary())


def check_beams(params: SamplingParams, beams: BeamParams) -> None:
    """`UsageError` where settings do not go with beams."""
    for name, active, why in (
        ("stop", bool(params.stop), "beams end at end tokens"),
        ("mirostat", params.mirostat != 0, "it learns from the draws of one sequence"),
        ("xtc_probability", params.xtc_probability > 0, "it throws dice for one sequence"),
    ):
        if active:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} does not go with beams: {why}", "leave one of them out", name)
    if beams.beam_sample and params.temperature == 0:
        raise UsageError(
            "--beam-sample draws, and temperature 0 is greedy", "leave one of them out"
        )


def _take(total: Tensor, count: int, noise: ExponentialNoise | None) -> tuple[Tensor, Tensor]:
    """The scores and places of the `count` highest of `total`, or of as many that are drawn from its
    softmax without replacement, as `torch.multinomial` draws them."""
    if noise is None:
        top = total.topk(count)
        return top.values, top.indices
    places = (total.softmax(-1) / noise.full()[0]).topk(count).indices
    return total[places], places
