"""Why a step took its token, in words, and what each setting did to a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from decodecli.records.run import Step, exp_or_zero
from decodecli.render.escaping import visible
from decodecli.render.number_format import count, percent
from decodecli.stages import PENALTIES


def sentence(step: Step, token: Callable[[str], str] = visible) -> str:
    """`rank 3 of 41 kept; …`; "" where the step was not explained. token: makes a piece visible."""
    explain = step.explain
    if explain is None:
        return ""
    parts = [f"rank {count(step.rank)}"]
    if explain.cuts:
        parts[0] += f"{' of' if step.rank <= step.kept else ','} {count(step.kept)} kept"
    for cut in explain.cuts:
        if cut.tokens:
            tokens = count(cut.tokens, "token")
            parts.append(f"{spoken(cut.stage)} removed {tokens} holding {percent(cut.mass)}")
    parts += [_shares(step), _choice(step, token)]
    for other in explain.without:
        if other.token_id != step.token_id:
            condition = (
                "at T=1" if other.stage == "temperature" else f"without {spoken(other.stage)}"
            )
            parts.append(f'{condition} it would have been "{token(other.token)}"')
    return "; ".join(parts)


def _shares(step: Step) -> str:
    """Its probability as the model gave it, and what became of it."""
    assert step.explain is not None
    temperature = step.explain.temperature
    words = f"at T=1 it had {percent(exp_or_zero(step.logprob))}"
    rescored = [spoken(o.stage) for o in step.explain.without if o.stage in PENALTIES]
    rescored += [f"T={temperature:.3g}"] if temperature != 1 else []
    if rescored:
        verb = "lifted" if step.tempered_logprob > step.logprob else "lowered"
        share = percent(exp_or_zero(step.tempered_logprob))
        words += f", {' and '.join(rescored)} {verb} it to {share}"
    if step.explain.cuts and step.kept > 1:
        words += f", among those kept it had {percent(exp_or_zero(step.final_logprob))}"
    return words


def _choice(step: Step, token: Callable[[str], str]) -> str:
    """What decided."""
    assert step.explain is not None
    if step.kept == 1:
        return "it was the only one left" if step.explain.cuts else "greedy took it"
    if step.token_id == step.explain.top_id:
        return "the draw took the most probable"
    return f'the draw took it over "{token(step.explain.top)}", the most probable'


def spoken(stage: str) -> str:
    """A stage's name as options are written: `top-p`."""
    return stage.replace("_", "-")


class Effects:
    """How often each setting changed the token of a run's explained steps."""

    def __init__(self) -> None:
        self.steps = self.first = self.drawn = self.alone = 0
        self._changed: Counter[str] = Counter()
        self._cutting: Counter[str] = Counter()
        self._stages: dict[str, None] = {}

    def add(self, step: Step) -> None:
        """Count a step in, if it was explained."""
        if step.explain is None:
            return
        self.steps += 1
        self.first += step.rank == 1
        self.drawn += step.token_id != step.explain.top_id
        self.alone += step.kept == 1 and bool(step.explain.cuts)
        for cut in step.explain.cuts:
            self._cutting[cut.stage] += cut.tokens > 0
        for other in step.explain.without:
            self._stages[other.stage] = None
            self._changed[other.stage] += other.token_id != step.token_id

    def lines(self) -> list[str]:
        """What each did: how often the token was not that of greedy, and what changed it."""
        others = self.steps - self.first
        lines = [
            f"explained: the model's first choice at {self.first} of {self.steps} steps"
            + (
                f"; at {self.drawn} the draw took another than the most probable left"
                if self.drawn
                else ""
            )
        ]
        if others and not self.drawn:
            lines[0] += f"; another at {others}"
        for stage in self._stages:
            times = self._changed[stage]
            if times:
                lines.append(f"{spoken(stage)} changed the token at {times} of {self.steps} steps")
            elif self.alone == self.steps and stage not in self._cutting:
                cutters = " and ".join(spoken(name) for name, n in self._cutting.items() if n)
                lines.append(f"{spoken(stage)} changed nothing here: {cutters} kept one token")
            elif stage in self._cutting and not self._cutting[stage]:
                lines.append(f"{spoken(stage)} removed nothing")
            else:
                lines.append(f"{spoken(stage)} changed no token")
        return lines
