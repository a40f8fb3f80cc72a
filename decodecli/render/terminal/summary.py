"""A run's header and summary, above and below its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import nlargest
from typing import Any

from rich.cells import cell_len

from decodecli.records.run import RunHeader, RunSummary, Step
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, one_line
from decodecli.render.number_format import count, decimal, percent, plain
from decodecli.render.repro_command import repeat_command
from decodecli.render.terminal.step_table import Style

_DOT, _ARROW = " · ", " → "


def header_lines(
    header: RunHeader, style: Style, sample: tuple[int, int] | None = None
) -> list[str]:
    """Model, precision, seed and stages in order, wrapped between parts."""
    model, params = header.model, header.params
    revision = f"@{one_line(model.revision)[:10]}" if model.revision else ""
    parts = [f"{one_line(model.name)}{revision} {numbers.size(model.parameters)}"]
    parts += [one_line(model.dtype), one_line(model.device)]
    if model.quantize != "none":
        parts.append(one_line(model.quantize))
    if header.greedy and sample is not None:  # one stands for all
        first = header.seed - sample[0] + 1
        parts.append(f"seeds {first} to {first + sample[1] - 1}: the same")
    else:
        parts.append(f"seed {header.seed}")
        parts += [f"sample {sample[0]} of {sample[1]}"] if sample is not None else []
    if params.get("chat"):
        system = params.get("system")
        parts.append("chat" if system is None else f"chat, system “{clip(one_line(system), 40)}”")
    stages = [_stage(name, params.get(name)) for name in header.order] or ["temperature 1"]
    return _wrapped([*parts, stages[0]], style, stages[1:])


def _stage(name: str, value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{one_line(name)} {plain(float(value))}" if number else one_line(name)


def summary_lines(header: RunHeader, summary: RunSummary, steps: Facts, style: Style) -> list[str]:
    """Speed, reason to stop, perplexity, the least sure steps, and the command to repeat the run."""
    facts = [_pace(summary), _why(summary, header)]
    if summary.mean_logprob is not None:
        facts.append(f"mean logprob {decimal(summary.mean_logprob)}")
    if summary.perplexity is not None:
        facts.append(f"perplexity {_perplexity(summary.perplexity)}")
    if steps.count:
        facts.append(f"mean H {numbers.entropy(steps.entropy / steps.count)}")
    lines = _wrapped(facts, style)
    if unsure := steps.least_sure(style):
        lines += _wrapped([f"least sure (T=1) at {unsure[0]}", *unsure[1:]], style)
    return [*lines, f"repeat: {repeat_command(header)}"]  # not wrapped, so that it can be copied


def _pace(summary: RunSummary) -> str:
    tokens = f"{count(summary.new_tokens)} token{'' if summary.new_tokens == 1 else 's'}"
    if not summary.seconds:  # nobody measured
        return tokens
    seconds = summary.seconds.get("prefill", 0.0) + summary.seconds.get("decode", 0.0)
    pace = f"{tokens} in {seconds:.{2 if seconds < 100 else 0}f} s"
    rate = summary.tokens_per_second
    return pace if rate is None else f"{pace} ({rate:,.{0 if rate >= 9.95 else 1}f}/s)"


def _why(summary: RunSummary, header: RunHeader) -> str:
    """Why the run ended, in words."""
    reason = summary.finish_reason
    if reason == "length":
        full = summary.new_tokens < header.params.get("max_new_tokens", 0)
        return "stopped: the context is full" if full else "stopped at length"
    if reason == "stop":
        or_string = " or stop string" if header.params.get("stop") else ""
        return f"stopped at an end token{or_string}"
    words = {"interrupted": "interrupted", "error": "ended by an error"}
    return words.get(reason, one_line(reason))


def _perplexity(value: float) -> str:
    if value > 1e9:
        return numbers.scientific(value)
    return f"{value:.1f}" if value < 9999.5 else f"{value:,.0f}"


class Facts:
    """Counts over a run's steps for its summary."""

    def __init__(self) -> None:
        self.count = 0
        self.entropy = 0.0
        self._unsure: list[tuple[float, int, str, float]] = []

    def add(self, step: Step) -> None:
        """Count a step in."""
        self.count += 1
        self.entropy += step.entropy
        if len(self._unsure) < 3 or step.entropy > self._unsure[-1][0]:
            entry = (step.entropy, -step.index, step.token, math.exp(step.logprob))
            self._unsure = nlargest(3, [*self._unsure, entry])

    def least_sure(self, style: Style) -> list[str]:
        """`#17 ␣garden (H 4.91, p 0.6%)`: the three steps of the greatest entropy, at temperature 1."""
        return [
            f"#{1 - minus} {clip(style.token(token), 20)} "
            f"(H {numbers.entropy(entropy)}, p {percent(probability)})"
            for entropy, minus, token, probability in self._unsure
        ]


def _wrapped(parts: Sequence[str], style: Style, stages: Sequence[str] = ()) -> list[str]:
    """Parts with dots and stages with arrows between, a new line where the next does not fit."""
    lines: list[str] = []
    for k, part in enumerate(map(style.encodable, (*parts, *stages))):
        separator = _DOT if k < len(parts) else _ARROW
        if lines and cell_len(lines[-1] + separator + part) <= style.width - 1:
            lines[-1] += separator + part
        else:
            indent = "  " if lines else ""
            lines.append(indent + (part if separator == _DOT else f"→ {part}"))
    return lines


def prompt_shown(header: RunHeader) -> str:
    """The prompt as it stands before the text: a message, which the text answers, on lines of its own."""
    return header.prompt + ("\n" if header.params.get("chat") else "")


def text_tail(prompt: str, longest: int = 1000, tail: int = 400) -> str:
    """A prompt as it is shown; of a very long one the end, behind a note of what was left out."""
    if len(prompt) <= longest:
        return prompt
    return f"… ({count(len(prompt) - tail)} characters before) {prompt[-tail:]}"
