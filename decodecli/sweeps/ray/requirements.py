"""How many workers each machine of a cluster gets, and when it gets no more.

Plain bookkeeping, as `scheduler` is: `engine` asks the cluster and starts what is said here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

CHANCES = 3  # how many workers may die on a machine before any of them was ready


@dataclass(frozen=True)
class Machine:
    """A node of the cluster as it offers itself: what may be asked of it, not what is free."""

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float = math.inf


@dataclass(frozen=True)
class Requirements:
    """A machine as it is seen from within: its physical cores, how many threads and bytes of memory a
    worker with this model should have on a CPU, and its version of this package."""

    cores: int
    threads: int
    memory: float = 0.0
    version: str = ""


@dataclass(frozen=True)
class WorkerSlot:
    """What one worker gets: whole GPUs, or CPUs and the threads to use on them."""

    cpus: float
    gpus: float
    threads: int | None


def choose_kind(device: str, machines: Iterable[Machine]) -> str | None:
    """cuda, mps or cpu for the whole sweep, as CPU and GPU draw differently from one seed.

    `auto` takes GPUs when any machine has one; None when no machine offers anything yet.
    """
    if device != "auto":
        return device.partition(":")[0]
    offered = list(machines)
    return next((kind for kind in ("cuda", "cpu") if any(offers(m, kind) for m in offered)), None)


def offers(machine: Machine, kind: str) -> bool:
    """Whether the machine can have any worker of this kind."""
    return machine.gpus >= 1 if kind == "cuda" else machine.cpus >= 1


def worker_slots(
    machine: Machine, kind: str, requirements: Requirements, *, by_hand: bool = False
) -> tuple[int, WorkerSlot]:
    """How many workers a machine has room for, and what each gets.

    Args:
        by_hand: the user said how many workers: second hardware threads count as cores then, and memory
            is the user's concern.
    """
    if kind == "cuda":
        return int(machine.gpus), WorkerSlot(0, 1, None)
    if kind == "mps":
        return 1, WorkerSlot(1, 0, None)
    cpus = machine.cpus if by_hand else min(machine.cpus, requirements.cores)
    room = cpus // requirements.threads
    if requirements.memory and not by_hand:
        room = min(room, machine.memory / requirements.memory)
    return max(1, int(room)), WorkerSlot(
        min(requirements.threads, machine.cpus), 0, requirements.threads
    )


class WorkerPool:
    """How many workers each machine has and should have.

    A worker that dies is replaced where it was; a machine on which the model cannot be loaded, or
    `CHANCES` workers in a row die before they are ready, gets no more.

    Args:
        limit: the most workers altogether; None for as many as there is room for.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._room: dict[str, int] = {}
        self._running: Counter[str] = Counter()
        self._died_early: Counter[str] = Counter()

    def offer(self, machine: str, room: int) -> None:
        """A machine has room for so many workers."""
        self._room[machine] = room

    def withdraw(self, machine: str) -> None:
        """A machine is gone, or gets no more workers."""
        self._room.pop(machine, None)

    def openings(self) -> list[str]:
        """The machines to start a worker on, one entry a worker, the emptiest machine first."""
        free = Counter({name: room - self._running[name] for name, room in self._room.items()})
        places = sum(count for count in free.values() if count > 0)
        if self.limit is not None:
            places = min(places, self.limit - self._running.total())
        openings = []
        for _ in range(places):
            machine = max(self._room, key=free.__getitem__)
            free[machine] -= 1
            openings.append(machine)
        return openings

    def started(self, machine: str) -> None:
        self._running[machine] += 1

    def ready(self, machine: str) -> None:
        """A worker has loaded its model: whatever went wrong there before was chance."""
        del self._died_early[machine]

    def ended(self, machine: str, *, was_ready: bool) -> bool:
        """A worker is dead; whether its machine may go on having workers."""
        self._running[machine] -= 1
        if not was_ready and machine in self._room:
            self._died_early[machine] += 1
            if self._died_early[machine] >= CHANCES:
                self.withdraw(machine)
                return False
        return True
