"""Who works on which cell: bookkeeping for workers that come, go, and die in the middle of a cell.

    scheduler = Scheduler(todo, group_of=prompt_number, batch_size=16)
    scheduler.take(worker, among=2)     # cells to give to this worker now
    scheduler.done(index)               # True the first time
    scheduler.lost(worker)              # it is dead: its unfinished cells are to be done again

No clock, no threads, no network: `engine` brings those.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable

TRIES = 3  # how often a cell is begun before it counts as what kills its workers


class Scheduler:
    """Cells that are to be done, each once, by any number of workers.

    A worker holds the rows of its batch and some cells ahead, so that a row that ends is replaced at
    once. How many ahead follows guided self-scheduling (Polychronopoulos and Kuck 1987): a share of
    what is left, so that in the end all workers end together. A worker stays with one group (a
    prompt) as long as it lasts, then takes one that nobody has begun, then helps with the longest.

    Nobody can tell which of a dead worker's cells killed it. The first time all of them go back to
    the others; those that were lost before run alone, after all the rest, so that a cell which kills
    every worker takes no other cell with it for good.

    Args:
        todo: the cells' numbers, in the order in which they should be done.
        group_of: what a cell has in common with those that are cheap to do after it.
        batch_size: how many cells a worker does at once.
        tries: after how many dead workers a cell is given up.
    """

    def __init__(
        self,
        todo: Iterable[int],
        group_of: Callable[[int], int],
        *,
        batch_size: int = 16,
        tries: int = TRIES,
    ) -> None:
        self.batch_size, self.tries = batch_size, tries
        self._group_of = group_of
        self._open: set[int] = set()
        self._groups: dict[int, deque[int]] = {}
        self._alone: deque[int] = deque()
        for index in todo:
            if index not in self._open:
                self._open.add(index)
                self._groups.setdefault(group_of(index), deque()).append(index)
        self._unbegun = deque(self._groups)
        self._group: dict[Hashable, int] = {}  # worker → the group it is at
        self._held: dict[Hashable, set[int]] = {}
        self._holder: dict[int, Hashable] = {}
        self._losses: Counter[int] = Counter()

    @property
    def unfinished(self) -> int:
        """How many cells are neither done nor given up."""
        return len(self._open)

    def held(self, worker: Hashable) -> frozenset[int]:
        """The cells that this worker has and has not finished."""
        return frozenset(self._held.get(worker, ()))

    def take(self, worker: Hashable, among: int) -> list[int]:
        """The cells to give to this worker now; empty when it has enough, or none are left.

        Args:
            among: how many workers there are or soon will be, this one included.
        """
        held = self._held.setdefault(worker, set())
        if any(self._runs_alone(index) for index in held):
            return []
        cells: list[int] = []
        waiting = len(self._open) - len(self._holder)
        ahead = min(self.batch_size, waiting // (2 * among))
        share = min(self.batch_size + ahead, math.ceil(len(self._open) / among))
        room = share - len(held)
        while len(cells) < room and (index := self._next(worker)) is not None:
            cells.append(index)
        if not cells and not held and (index := self._first_open(self._alone)) is not None:
            cells.append(index)
        held.update(cells)
        self._holder.update(dict.fromkeys(cells, worker))
        return cells

    def done(self, index: int) -> bool:
        """Note that a cell is finished; False when it was before, or was given up."""
        if index not in self._open:
            return False
        self._open.remove(index)
        if index in self._holder:
            self._held[self._holder.pop(index)].discard(index)
        return True

    def lost(self, worker: Hashable) -> list[int]:
        """Note that a worker is dead; the cells that have now been tried too often."""
        self._group.pop(worker, None)
        given_up = []
        for index in sorted(self._held.pop(worker, ()), reverse=True):
            del self._holder[index]
            self._losses[index] += 1
            if self._losses[index] >= self.tries:
                self._open.remove(index)
                given_up.append(index)
            elif self._runs_alone(index):
                self._alone.appendleft(index)
            else:
                group = self._group_of(index)
                if group not in self._groups:
                    self._groups[group] = deque()
                    self._unbegun.appendleft(group)
                self._groups[group].appendleft(index)
        return given_up[::-1]

    def _runs_alone(self, index: int) -> bool:
        return index in self._losses and self._losses[index] >= self.tries - 1

    def _next(self, worker: Hashable) -> int | None:
        """The next cell of the worker's group, or of the next group."""
        while self._groups:
            group = self._group.get(worker)
            if group is None or group not in self._groups:
                while self._unbegun and self._unbegun[0] not in self._groups:
                    self._unbegun.popleft()
                group = (
                    self._unbegun.popleft()
                    if self._unbegun
                    else max(self._groups, key=lambda number: len(self._groups[number]))
                )
                self._group[worker] = group
            index = self._first_open(self._groups[group])
            if index is not None:
                return index
            del self._groups[group]
        return None

    def _first_open(self, waiting: deque[int]) -> int | None:
        """Take the first that is still to be done: one that was lost may have come in after all."""
        while waiting:
            index = waiting.popleft()
            if index in self._open:
                return index
        return None
