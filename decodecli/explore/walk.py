"""A walk through a session: the place that is looked at, its distribution, and what can be done there.

Nothing here knows a screen, and nothing waits: `distribution` is None until `arrived` is told the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from decodecli.explore.engine import Noise, Source
from decodecli.explore.session import DRAWN, GREEDY, TAKEN, Choice, Session, settings_of
from decodecli.records.run import Candidate, exp_or_zero
from decodecli.render import number_format as numbers
from decodecli.render.escaping import one_line, visible
from decodecli.sampling.one_position import Distribution


class Walk:
    """A place in a session.

    source: where logits come from. session: is changed. byte_level: whether pieces are spelt in GPT-2's
    byte alphabet.
    """

    def __init__(self, source: Source, session: Session, byte_level: bool = False) -> None:
        self.source, self.session, self.byte_level = source, session, byte_level
        self.cursor: int | None = None  # an earlier token that is looked at; None is the end
        self.distribution: Distribution | None = None
        self.pending = 0  # draws to make as soon as the logits are there
        self.matches: Sequence[int] | None = None  # token ids that are searched for
        self.highlight = 0  # row of the candidates
        self.guesses: list[tuple[int, float]] = []  # rank and surprisal of each
        self._noise = Noise(source.vocab_size)
        self._spellings: list[str] = []

    # The place.

    @property
    def length(self) -> int:
        """How many tokens of the branch stand before the place."""
        choices = len(self.session.branch.choices)
        return choices if self.cursor is None else min(self.cursor, choices)

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens before the place, those of the prompt too."""
        return (*self.session.prompt_ids, *self.session.branch.ids[: self.length])

    @property
    def present(self) -> int | None:
        """The token that the branch has here; None at its end."""
        choices = self.session.branch.choices
        return choices[self.length].token_id if self.length < len(choices) else None

    @property
    def has_ended(self) -> bool:
        """Whether an end of text stands before the place."""
        choices = self.session.branch.choices[: self.length]
        return bool(choices) and choices[-1].token_id in self.source.eos_ids

    @property
    def title(self) -> str:
        """The session and the branch in a line."""
        session, branch = self.session, self.session.branch
        name = "numbers" if session.model is None else session.model.name
        parts = [one_line(name), f"branch {session.current + 1} of {len(session.branches)}"]
        parts.append(f"seed {branch.seed}")
        if branch.mean_surprisal is not None:
            length = numbers.count(len(branch.choices), "token")
            parts += [length, f"{branch.mean_surprisal:.2f} nats each"]
        return " · ".join([*parts, *([] if session.saved else ["not saved"])])

    @property
    def facts(self) -> str:
        """The place's distribution in a line."""
        assert self.distribution is not None
        before, after = (numbers.entropy(nats) for nats in self.distribution.entropies)
        size, kept = numbers.count(self.source.vocab_size), numbers.count(self.distribution.kept)
        kept = f"all {size} kept" if kept == size else f"kept {kept} of {size}"
        return f"entropy {before} → {after} · {kept}"

    def leave(self) -> None:
        """Forget the numbers of the place before."""
        self.distribution, self.matches, self.highlight = None, None, 0

    def arrived(self, logits: Tensor) -> None:
        """Take the logits of the place."""
        self.distribution = Distribution(logits, self.ids, self.session.params)
        if self.present is not None:
            self.highlight = self.row_of(self.present)

    def go_to(self, index: int) -> None:
        """Look at the token of this index, or at the end."""
        last = len(self.session.branch.choices)
        index = max(min(index, last), 0)
        self.cursor, self.pending = (None if index == last else index), 0

    # Tokens. Each of these needs the distribution, and leaves the place.

    def add(self, token_id: int, how: str) -> None:
        """Put a token at the place; another one than there is at an earlier place makes a branch."""
        assert self.distribution is not None
        if token_id == self.present:
            self.go_to(self.length + 1)
            return
        if self.cursor is not None:
            self.session.open_branch(self.length, fresh_seed=False)
            self.cursor = None
        row = self.distribution.candidate(token_id, self.source.piece(token_id))
        seed = self.session.branch.seed if how == DRAWN else None
        params = settings_of(self.distribution.params)
        self.session.add(
            Choice(token_id, row.token, row.rank, row.logprob, row.final_logprob, how, seed, params)
        )

    def draw(self) -> None:
        """Add what the settings draw here with the branch's seed."""
        assert self.distribution is not None
        greedy = self.distribution.chain.greedy
        noise = None if greedy else self._noise.at(self.session.branch.seed, self.length)
        self.add(self.distribution.draw(noise), GREEDY if greedy else DRAWN)

    def take(self) -> None:
        """Add the highlighted candidate."""
        self.add(self.row(self.highlight).token_id, TAKEN)

    def take_most_probable(self) -> None:
        assert self.distribution is not None
        greedy = self.distribution.under(replace(self.session.params, temperature=0.0))
        self.add(greedy.top, GREEDY)

    def undo(self) -> None:
        """Take the branch's last token away."""
        self.pending, self.cursor = 0, None
        self.session.undo()

    def redraw(self) -> None:
        """Take the branch's last token away and draw with another seed in its place."""
        self.undo()
        self.session.reseed()
        self.pending = 1

    def open_branch(self) -> None:
        """Begin a branch at the place."""
        self.session.open_branch(self.length)
        self.cursor = None

    def show_branch(self, number: int) -> None:
        """Go to the end of another branch."""
        self.cursor, self.pending = None, 0
        self.session.current = number % len(self.session.branches)

    # Candidates.

    @property
    def count(self) -> int:
        """Of the rows of candidates."""
        return self.source.vocab_size if self.matches is None else len(self.matches)

    def row(self, index: int) -> Candidate:
        assert self.distribution is not None
        token = int((self.distribution.order if self.matches is None else self.matches)[index])
        return self.distribution.candidate(token, self.source.piece(token))

    def row_of(self, token_id: int) -> int:
        assert self.distribution is not None
        return int((self.distribution.order == token_id).argmax())

    def find(self, text: str) -> None:
        """Have only those tokens as rows that have `text` in them; all where it is empty."""
        self.highlight = 0
        self.matches = self._spelt(text, exactly=False) if text else None

    def _spelt(self, text: str, exactly: bool) -> list[int]:
        """Token ids by logit; a typed space is a space."""
        assert self.distribution is not None
        if not self._spellings:
            pieces = map(self.source.piece, range(self.source.vocab_size))
            self._spellings = [visible(piece, self.byte_level).lower() for piece in pieces]
        sought, spellings = text.lower().replace(" ", "␣"), self._spellings
        order = self.distribution.order.tolist()
        if exactly:
            return [k for k in order if spellings[k].lstrip("␣") == sought.lstrip("␣")]
        return [k for k in order if sought in spellings[k]]

    def guess(self, text: str) -> str | None:
        """Judge a guess of the next token; in words. None where no token is spelt so."""
        matching = self._spelt(text, exactly=True) if text.strip() else []
        if not matching:
            return None
        self.highlight, self.matches = self.row_of(matching[0]), None
        row = self.row(self.highlight)
        self.guesses.append((row.rank, -row.logprob))
        hits = sum(rank == 1 for rank, _ in self.guesses)
        mean = sum(surprisal for _, surprisal in self.guesses) / len(self.guesses)
        return (
            f"{visible(row.token, self.byte_level)} is number {row.rank}, "
            f"{numbers.percent(exp_or_zero(row.logprob))}. {hits} of {len(self.guesses)} right, "
            f"{mean:.2f} nats a guess. w guesses again, space goes on"
        )

    def set(self, name: str, value: float) -> None:
        """Change one setting; the distribution follows without a forward pass."""
        self.session.params = replace(self.session.params, **{name: value})  # type: ignore[arg-type]
        if self.distribution is not None:
            self.distribution = self.distribution.under(self.session.params)
