"""A run's header and summary, above and below its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nlargest

from rich.cells import cell_len

from decodecli.records.run import RunHeader, RunSummary, Step
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, one_line
from decodecli.render.explanation import Effects
from decodecli.render.number_format import count, decimal, percent, plain
from decodecli.render.repro_command import repeat_command
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.wrap import wrap_parts


def header_lines(header: RunHeader, style: Style, sample: tuple[int, int] = (1, 1)) -> list[str]:
    """Model, precision, seed and stages in order, wrapped between parts. `sample`: which, of how many."""
    model, params = header.model, header.params
    revision = f"@{one_line(model.revision)[:10]}" if model.revision else ""
    parts = [f"{one_line(model.name)}{revision} {numbers.size(model.parameters)}"]
    parts += [one_line(model.dtype), one_line(model.device)]
    if model.quantize != "none":
        parts.append(one_line(model.quantize))
    if header.greedy and sample[1] > 1:  # one stands for all
        first = header.seed - sample[0] + 1
        parts.append(f"seeds {first} to {first + sample[1] - 1}: the same")
    else:
        parts.append(f"seed {header.seed}")
        parts += [f"sample {sample[0]} of {sample[1]}"] if sample[1] > 1 else []
    if params.get("chat"):
        system = params.get("system")
        parts.append("chat" if system is None else f"chat, system “{clip(one_line(system), 40)}”")
    stages = []
    for name in header.order:
        stage, value = one_line(name), params.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            stage += f" {plain(float(value))}"
        stages.append(stage)
    parts += stages[:1] or ["temperature 1"]
    return _wrapped(parts, style, stages[1:])


def _wrapped(parts: Iterable[str], style: Style, stages: Iterable[str] = ()) -> list[str]:
    """Parts with dots and stages with arrows between, a new line where the next does not fit."""
    written = [*map(style.encodable, parts), *(f"→ {style.encodable(stage)}" for stage in stages)]
    return wrap_parts(written, style.width - 1, indent="  ")


def summary_lines(header: RunHeader, summary: RunSummary, steps: Facts, style: Style) -> list[str]:
    """Speed, reason to stop, perplexity, the least sure steps, and the command to repeat the run."""
    pace = count(summary.new_tokens, "token")
    if summary.seconds:  # somebody measured
        seconds = summary.seconds.get("prefill", 0.0) + summary.seconds.get("decode", 0.0)
        pace += f" in {seconds:.{2 if seconds < 100 else 0}f} s"
        if (rate := summary.tokens_per_second) is not None:
            pace += f" ({rate:,.{0 if rate >= 9.95 else 1}f}/s)"
    full = summary.new_tokens < header.params.get("max_new_tokens", 0)
    or_string = " or stop string" if header.params.get("stop") else ""
    reasons = {
        "length": "stopped: the context is full" if full else "stopped at length",
        "stop": f"stopped at an end token{or_string}",
        "interrupted": "interrupted",
        "error": "ended by an error",
    }
    facts = [pace, reasons.get(summary.finish_reason, one_line(summary.finish_reason))]
    if summary.mean_logprob is not None:
        facts.append(f"mean logprob {decimal(summary.mean_logprob)}")
    if (perplexity := summary.perplexity) is not None:
        text = f"{perplexity:.1f}" if perplexity < 9999.5 else f"{perplexity:,.0f}"
        text = numbers.scientific(perplexity) if perplexity > 1e9 else text
        facts.append(f"perplexity {text}")
    if steps.count:
        facts.append(f"mean H {numbers.entropy(steps.entropy / steps.count)} at T=1")
    lines = _wrapped(facts, style)
    unsure = [
        f"#{1 - minus} {clip(style.token(token), 20)} "
        f"(H {numbers.entropy(entropy)}, p {percent(probability)})"
        for entropy, minus, token, probability in steps.least_sure
    ]
    if unsure:
        first = f"least sure (T=1) at {unsure[0]}"
        fits = cell_len(first) < style.width
        lines += _wrapped([first, *unsure[1:]] if fits else ["least sure (T=1)", *unsure], style)
    if steps.constrained is not None:
        index, most = steps.most_constrained
        mean = percent(steps.constrained / steps.count)
        words = (
            f"constraint: ruled out {mean} of the model's probability in the mean of the steps, "
        )
        words += f"most at #{index + 1} ({percent(most)})"
        lines += wrap_parts(words.split(" "), style.width - 1, " ", "  ")
    if steps.effects.steps:
        for line in steps.effects.lines():
            lines += wrap_parts(line.split(" "), style.width - 1, " ", "  ")
    for settings, other in steps.what_if.items():
        words = f"what if {settings}: "
        if other.first is not None:
            index, token, instead = other.first
            words += (
                f"leaves at #{index + 1}, {style.token(token)} in place of {style.token(instead)}; "
            )
        every = "the same tokens" if not other.unknown else "no other token where it is known"
        of = f"another token at {other.times} of {steps.count} steps"
        words += of if other.times else every
        words += f"; {other.unknown} cannot be known" if other.unknown else ""
        lines += wrap_parts(words.split(" "), style.width - 1, " ", "  ")
    return [*lines, f"repeat: {repeat_command(header)}"]  # not wrapped, so that it can be copied


@dataclass
class Divergences:
    """How often settings would have drawn another token, and how often nobody knows. `first`: where,
    which token, the run's own; None where it is not known which was the first."""

    times: int = 0
    unknown: int = 0
    first: tuple[int, str, str] | None = None


class Facts:
    """Counts over a run's steps for its summary. `least_sure` are the three steps of the greatest
    entropy at temperature 1: entropy, minus the index, token, probability. `what_if` has
    what the other settings came to."""

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.count = 0
        self.entropy = 0.0
        self.least_sure: list[tuple[float, int, str, float]] = []
        self.what_if: dict[str, Divergences] = {}
        self.effects = Effects()
        self.constrained: float | None = None  # a sum of probabilities
        self.most_constrained = (0, 0.0)  # index, probability
        for step in steps:
            self.add(step)

    def add(self, step: Step) -> None:
        """Count a step in."""
        self.count += 1
        self.entropy += step.entropy
        if len(self.least_sure) < 3 or step.entropy > self.least_sure[-1][0]:
            entry = (step.entropy, -step.index, step.token, math.exp(step.logprob))
            self.least_sure = nlargest(3, [*self.least_sure, entry])
        self.effects.add(step)
        if step.constrained_mass is not None:
            self.constrained = (self.constrained or 0.0) + step.constrained_mass
            if step.constrained_mass > self.most_constrained[1]:
                self.most_constrained = step.index, step.constrained_mass
        for other in step.what_if:
            counted = self.what_if.setdefault(other.settings, Divergences())
            if other.token is None:
                counted.unknown += 1
            elif other.token_id != step.token_id:
                counted.times += 1
                if other.first_divergence:
                    counted.first = step.index, other.token, step.token


def text_tail(prompt: str, longest: int = 1000, tail: int = 400) -> str:
    """A prompt as it is shown; of a very long one the end, behind a note of what was left out."""
    if len(prompt) <= longest:
        return prompt
    return f"… ({count(len(prompt) - tail)} characters before) {prompt[-tail:]}"
