"""Every cell exactly once, whoever dies and whenever; a cell that kills is given up, and no other is."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from decodecli.sweeps.ray.scheduler import Scheduler


def groups_of(size: int):
    return lambda index: index // size


class Sweep(RuleBasedStateMachine):
    """Workers join, finish cells, report one twice, and die, in any order."""

    @initialize(
        cells=st.integers(0, 40),
        group=st.integers(1, 9),
        batch=st.integers(1, 6),
        tries=st.integers(1, 4),
        killers=st.sets(st.integers(0, 39), max_size=3),
    )
    def start(self, cells, group, batch, tries, killers):
        self.scheduler = Scheduler(range(cells), groups_of(group), batch_size=batch, tries=tries)
        self.cells, self.batch, self.tries = cells, batch, tries
        self.killers = {index for index in killers if index < cells}
        self.finished: list[int] = []
        self.given_up: list[int] = []
        self.deaths: Counter[int] = Counter()
        self.holding: dict[int, set[int]] = {0: set()}
        self.next_worker = 1

    def take(self, worker: int) -> None:
        taken = self.scheduler.take(worker, among=len(self.holding))
        held = set().union(*self.holding.values())
        assert not held & set(taken), "a cell was given to two"
        assert len(taken) == len(set(taken))
        assert not set(taken) & set(self.finished)
        self.holding[worker].update(taken)
        assert len(self.holding[worker]) <= 2 * self.batch

    def kill(self, worker: int) -> None:
        held = self.holding.pop(worker)
        self.deaths.update(held)
        gone = self.scheduler.lost(worker)
        assert set(gone) == {index for index in held if self.deaths[index] == self.tries}
        self.given_up += gone
        self.holding[self.next_worker] = set()
        self.next_worker += 1

    def work(self, worker: int, index: int) -> None:
        if index in self.killers:
            self.kill(worker)
        else:
            self.holding[worker].remove(index)
            assert self.scheduler.done(index)
            self.finished.append(index)

    @rule()
    def join(self):
        self.holding[self.next_worker] = set()
        self.next_worker += 1

    @rule(pick=st.randoms(use_true_random=False))
    def give(self, pick: random.Random):
        self.take(pick.choice(sorted(self.holding)))

    @precondition(lambda self: any(self.holding.values()))
    @rule(pick=st.randoms(use_true_random=False))
    def finish_one(self, pick: random.Random):
        worker = pick.choice([worker for worker, held in self.holding.items() if held])
        self.work(worker, pick.choice(sorted(self.holding[worker])))

    @precondition(lambda self: self.finished)
    @rule(pick=st.randoms(use_true_random=False))
    def report_again(self, pick: random.Random):
        assert not self.scheduler.done(pick.choice(self.finished))

    @rule(pick=st.randoms(use_true_random=False))
    def die(self, pick: random.Random):
        self.kill(pick.choice(sorted(self.holding)))

    @invariant()
    def counts(self):
        if hasattr(self, "scheduler"):
            assert self.scheduler.unfinished == self.cells - len(self.finished) - len(self.given_up)

    def teardown(self):
        """From wherever it stands, the rest is done without a further accident."""
        if not hasattr(self, "scheduler"):
            return
        while self.scheduler.unfinished:
            before = self.scheduler.unfinished, sum(self.deaths.values())
            for worker in sorted(self.holding):
                self.take(worker)
            for worker in sorted(self.holding):
                for index in sorted(self.holding.get(worker, ())):
                    if worker in self.holding:
                        self.work(worker, index)
            assert (self.scheduler.unfinished, sum(self.deaths.values())) != before, (
                "it stands still"
            )
        assert sorted(self.finished + self.given_up) == list(range(self.cells))


Sweep.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSweep = Sweep.TestCase


@given(cells=st.integers(1, 60), batch=st.integers(1, 8), killer=st.integers(0, 59))
@settings(deadline=None, max_examples=60)
def test_a_cell_that_kills_every_worker_takes_no_other_with_it(cells, batch, killer):
    scheduler = Scheduler(range(cells), groups_of(7), batch_size=batch, tries=3)
    finished, given_up, deaths = set(), [], 0
    while scheduler.unfinished:
        worker = f"worker {deaths}"
        held = [*scheduler.held(worker), *scheduler.take(worker, among=1)]
        if killer in held:
            given_up += scheduler.lost(worker)
            deaths += 1
            continue
        finished.update(index for index in held if scheduler.done(index))
    assert given_up == ([killer] if killer < cells else [])
    assert deaths == (3 if killer < cells else 0)
    assert finished == set(range(cells)) - {killer}


def test_a_cell_under_suspicion_runs_alone_and_last():
    scheduler = Scheduler(range(6), groups_of(6), batch_size=2, tries=3)
    first = scheduler.take("a", among=1)
    scheduler.lost("a")
    assert scheduler.take("b", among=1) == first, "the first time, as if nothing had happened"
    scheduler.lost("b")
    rest = set()
    while batch := scheduler.take("c", among=1):
        assert len(rest) < 6 - len(first) or len(batch) == 1
        rest.update(batch)
        for index in batch:
            scheduler.done(index)
    assert rest == set(range(6))
    assert not scheduler.unfinished


def test_a_worker_stays_with_its_prompt():
    """Each prompt is begun by one worker as long as there are prompts for all."""
    scheduler = Scheduler(range(80), groups_of(10), batch_size=4)
    seen: dict[int, set[str]] = {}
    workers = ["a", "b", "c"]
    for turn in range(1000):
        worker = workers[turn % 3]
        for index in scheduler.take(worker, among=3):
            seen.setdefault(index // 10, set()).add(worker)
        for index in sorted(scheduler.held(worker))[:2]:
            scheduler.done(index)
    assert not scheduler.unfinished
    assert sum(len(who) for who in seen.values()) <= 8 + 3, "only the last prompts are shared"


def test_few_cells_are_shared_out_evenly():
    scheduler = Scheduler(range(16), groups_of(16), batch_size=16)
    assert [len(scheduler.take(worker, among=2)) for worker in "ab"] == [8, 8]


def test_a_worker_has_a_full_batch_and_some_ahead():
    scheduler = Scheduler(range(1000), groups_of(1000), batch_size=16)
    assert len(scheduler.take("a", among=4)) == 32
    assert scheduler.take("a", among=4) == []
    scheduler.done(3)
    assert len(scheduler.take("a", among=4)) == 1


@pytest.mark.parametrize("workers", [2, 7])
def test_in_the_end_all_workers_end_together(workers):
    """Workers of different speeds: nobody is idle for longer than two cells take the slowest."""
    scheduler = Scheduler(range(400), groups_of(100), batch_size=4)
    pace = [1 + number % 3 for number in range(workers)]  # cells a turn
    idle: dict[int, int] = {}
    turn = 0
    while scheduler.unfinished:
        turn += 1
        for worker in range(workers):
            scheduler.take(worker, among=workers)
            held = sorted(scheduler.held(worker))
            if not held:
                idle.setdefault(worker, turn)
            for index in held[: pace[worker]]:
                scheduler.done(index)
    assert all(turn - since <= 4 for since in idle.values())


def test_a_hundred_thousand_cells_are_handed_out_in_a_moment():
    began = time.perf_counter()
    scheduler = Scheduler(range(100_000), groups_of(100), batch_size=16)
    while scheduler.unfinished:
        for worker in range(50):
            scheduler.take(worker, among=50)
            for index in list(scheduler.held(worker))[:8]:
                scheduler.done(index)
    assert time.perf_counter() - began < 10
