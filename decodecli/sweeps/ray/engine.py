"""A grid over a Ray cluster: a worker per GPU or per core, cells as work, outcomes as they end.

`scheduler` says who works on what and `placement` where workers are; here is the cluster itself. A
worker is asked for one exchange after another: further cells go in, what has ended comes out. Nothing
is kept on the cluster, so that whatever happens to a worker, its machine, or the answer on its way, is
one case: the exchange fails, the worker is given up, and its unfinished cells go to others.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import decodecli
from decodecli.errors import DecodecliError, LoadError
from decodecli.models.threads import usable_cores
from decodecli.records.run import ModelInfo
from decodecli.settings import LoadParams, check_positive
from decodecli.sweeps.cell_result import CellResult, cell_record
from decodecli.sweeps.grid import Grid
from decodecli.sweeps.ray.connection import connected, import_ray
from decodecli.sweeps.ray.requirements import (
    Machine,
    Requirements,
    WorkerPool,
    WorkerSlot,
    choose_kind,
    offers,
    worker_slots,
)
from decodecli.sweeps.ray.scheduler import Scheduler
from decodecli.sweeps.ray.worker import Model, Options, Problem, Report, Worker, load_model, survey

LOOK = 1.0  # seconds between two looks at the cluster
PAUSE = 0.25  # the longest that a worker keeps news of drawn tokens to itself, seconds
STARTING = 60.0  # a worker that is not ready after so long may be waiting for room, seconds
PATIENCE = 600.0  # how long to wait for a machine while there is none, seconds
_DEATHS = 10  # of workers without a cell finished in between, beside two for each that there is


def run_on_ray(
    load: LoadParams,
    grid: Grid,
    todo: Sequence[int],
    *,
    address: str | None = None,
    actors: int | None = None,
    batch_size: int = 16,
    exact: bool = False,
    traces: bool = False,
    candidates: int = 10,
    on_tokens: Callable[[int], None] | None = None,
    notice: Callable[[str], None] | None = None,
    on_model: Callable[[ModelInfo], None] | None = None,
    make: Callable[[LoadParams, Options], Model] = load_model,
) -> Iterator[CellResult]:
    """Run the cells `todo` of the grid on a Ray cluster; outcomes come as cells end, each once.

    A dead worker or machine costs only its unfinished cells, which run again elsewhere; a cell whose
    worker dies three times is given up, with an error. Machines that join are used. Leaving the
    iterator, Ctrl-C included, ends the workers.

    Args:
        address: None for a cluster on this machine that ends with the run, "auto" for the one that
            this machine is part of, else the address of its head.
        actors: how many workers, asked of an autoscaler too; None for one on each GPU, or where
            there is none on each physical core (small models) or machine, as many as there are.
        on_tokens: called with how many tokens have been drawn since the last call.
        notice: called with a line on what the user should know.
        on_model: called once, before the first outcome, with what the first worker has loaded.
        make: what loads the model on a worker; goes there by value.

    Raises:
        UsageError: `actors` is below 1.
        LoadError: Ray is not installed, or no machine of the cluster can load the model.
        DecodecliError: there is no such cluster, or none of its machines can have a worker.
    """
    if actors is not None:
        check_positive("actors", actors, "leave it out to use all that the cluster has")
    if not todo:
        return
    ray = import_ray()
    options = Options(batch_size, exact, traces, candidates)
    place = replace(load, model=_absolute(load.model), threads=load.threads or _asked_threads())
    cpus = actors and max(os.cpu_count() or 1, actors * (place.threads or usable_cores()))
    with connected(ray, address, cpus) as own:
        cluster = _Cluster(ray, place, grid, options, make, actors, own)
        cluster.tell = notice or cluster.tell
        cluster.on_tokens = on_tokens or cluster.on_tokens
        if on_model is not None:
            cluster.on_model = lambda info: on_model(replace(info, name=load.model))
        try:
            yield from cluster.run(todo)
        finally:
            cluster.close()


@dataclass(eq=False)
class _Actor:
    """A worker as the driver knows it."""

    handle: Any
    machine: Machine
    since: float
    ready: bool = False


class _Cluster:
    """The workers, what they have been asked, and what to do with the answers."""

    def __init__(
        self,
        ray: Any,
        load: LoadParams,
        grid: Grid,
        options: Options,
        make: Callable[[LoadParams, Options], Model],
        actors: int | None,
        own: bool,
    ) -> None:
        self.ray, self.load, self.grid, self.options = ray, load, grid, options
        self.wanted, self.own = actors, own
        self.tell: Callable[[str], None] = lambda line: None
        self.on_tokens: Callable[[int], None] = lambda count: None
        self.on_model: Callable[[ModelInfo], None] = lambda info: None
        self.pool = WorkerPool(actors)
        self.kind: str | None = None
        self.machines: dict[str, Machine] = {}
        self.slots: dict[str, WorkerSlot] = {}
        self.actors: set[_Actor] = set()
        self.answers: dict[
            Any, Callable[[Any], Iterable[CellResult]]
        ] = {}  # asked for, by their refs
        self.problem: Problem | None = None
        self.left_out: set[str] = set()
        self.versions: dict[str, str] | None = None
        self.deaths = 0  # of workers, since a cell was last finished
        self._looked = -LOOK
        self._told_of_wait = False
        self._idle_since: float | None = None
        self._given = (ray.put(grid), options, make)  # to every worker
        self._worker = ray.remote(max_restarts=0, max_task_retries=0)(Worker)
        self._survey = ray.remote(max_retries=0, num_cpus=0)(survey)

    def run(self, todo: Sequence[int]) -> Iterator[CellResult]:
        """The outcomes of these cells."""
        per_prompt = max(1, len(self.grid) // len(self.grid.prompts))  # prompts are outermost
        self.scheduler = Scheduler(
            todo, lambda index: index // per_prompt, batch_size=self.options.batch_size
        )
        while self.scheduler.unfinished:
            if time.monotonic() - self._looked >= LOOK:
                self._look()
                self._hire()
                self._check_idle()
                self._looked = time.monotonic()
            for ref in self._answered():
                yield from self.answers.pop(ref)(ref)

    def close(self) -> None:
        """End every worker."""
        for actor in self.actors:
            with contextlib.suppress(Exception):
                self.ray.kill(actor.handle)
        if self.wanted is not None and not self.own:
            self._demand(0)

    # --- Machines -------------------------------------------------------------------------------

    def _look(self) -> None:
        """Note machines that have come and gone."""
        found = {
            node["NodeID"]: Machine(
                node["NodeID"],
                node["NodeManagerHostname"] or node["NodeManagerAddress"],
                node["Resources"].get("CPU", 0),
                node["Resources"].get("GPU", 0),
                node["Resources"].get("memory", math.inf),
            )
            for node in self.ray.nodes()
            if node["Alive"]
        }
        for gone in self.machines.keys() - found.keys():
            self.pool.withdraw(gone)
            self.tell(f"{self.machines.pop(gone).name} has left the cluster")
        if self.kind is None:
            self.kind = choose_kind(self.load.device, found.values())
            if self.kind is None:
                return
            if self.load.max_memory is None or self.kind != "cuda":
                # The number of a GPU means nothing elsewhere: a worker sees its own alone.
                self.load = replace(self.load, device=self.kind)
        for machine in found.values():
            if machine.id not in self.machines and offers(machine, self.kind):
                self.machines[machine.id] = machine
                ask = self._pinned(self._survey, machine)
                self.answers[ask(self.load)] = partial(self._surveyed, machine)

    def _surveyed(self, machine: Machine, ref: Any) -> Iterable[CellResult]:
        try:
            found = self.ray.get(ref)
        except Exception as error:  # of Ray, or of a package that is not there
            found = Problem(_cause(error), "install decodecli on every machine of the cluster")
        if isinstance(found, Problem):
            self._leave_out(machine, found)
        elif found.version != decodecli.__version__:
            wrong = f"it has decodecli {found.version}, not {decodecli.__version__}"
            self._leave_out(machine, Problem(wrong, "install the same version everywhere"))
        elif machine.id in self.machines:
            need = Requirements(found.cores, found.threads, found.memory)
            room, slot = worker_slots(
                machine, self.kind or "cpu", need, asked=self.wanted is not None
            )
            self.slots[machine.id] = slot
            self.pool.offer(machine.id, room)
            if self.versions is not None:  # the sweep is under way
                self.tell(f"{machine.name} has joined: room for {room} more")
            self._demand(self.wanted, slot)
            self._hire()
        return ()

    def _leave_out(self, machine: Machine, problem: Problem) -> None:
        self.pool.withdraw(machine.id)
        if machine.id not in self.machines or machine.id in self.left_out:
            return  # it is gone, and that was it; or it is known
        self.problem = problem
        self.left_out.add(machine.id)
        if len(self.machines) > 1:  # else it is the end, and the error says it
            self.tell(f"no more workers on {machine.name}: {problem.message}")

    def _demand(self, count: int | None, slot: WorkerSlot | None = None) -> None:
        """Tell an autoscaler, if there is one, what to make room for; 0 to take that back."""
        if self.own or count is None:
            return
        from ray.autoscaler.sdk import request_resources

        each = {"GPU": slot.gpus} if slot and slot.gpus else {"CPU": slot.cpus if slot else 1}
        with contextlib.suppress(Exception):  # a wish
            request_resources(bundles=[each] * count)

    def _check_idle(self) -> None:
        """Say where workers wait, and give up where none is to be expected any more."""
        if self._waits():
            self.tell("no worker has started yet: the cluster may be busy with other work")
            self._told_of_wait = True
        if self.actors or self.answers:
            self._idle_since = None
            return
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
            if self.machines or self.own:
                self._give_up()
            self.tell(f"waiting for a machine with a {'GPU' if self.kind == 'cuda' else 'CPU'}")
            self._demand(self.wanted, WorkerSlot(1, float(self.kind == "cuda"), None))
        elif now - self._idle_since > PATIENCE or self.machines:
            self._give_up()

    def _waits(self) -> bool:
        """Whether workers have been starting for too long, the first time."""
        if self._told_of_wait or not self.actors or any(each.ready for each in self.actors):
            return False
        return time.monotonic() - min(each.since for each in self.actors) > STARTING

    def _give_up(self) -> NoReturn:
        if self.problem is not None:
            raise LoadError(self.problem.message, self.problem.hint)
        if self.machines:
            raise LoadError(
                "the workers died while they loaded the model",
                "is there enough memory? --actors starts fewer of them",
            )
        lacking = "GPU" if self.kind == "cuda" else "CPU"
        raise DecodecliError(
            f"no machine of the Ray cluster offers a {lacking}",
            "add one to the cluster, or use --device cpu" if lacking == "GPU" else "add one to it",
        )

    # --- Workers --------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Start the workers that there is room for."""
        for name in self.pool.openings():
            machine, slot = self.machines[name], self.slots[name]
            load = self.load if slot.threads is None else replace(self.load, threads=slot.threads)
            start = self._pinned(self._worker, machine, num_cpus=slot.cpus, num_gpus=slot.gpus)
            actor = _Actor(start(load, *self._given), machine, time.monotonic())
            self.actors.add(actor)
            self.pool.started(name)
            self.answers[actor.handle.ready.remote()] = partial(self._started, actor)

    def _started(self, actor: _Actor, ref: Any) -> Iterable[CellResult]:
        try:
            model = self.ray.get(ref)
        except self.ray.exceptions.RayError:
            model = Problem("")
        if isinstance(model, Problem):
            self._end(actor)
            if model.message:
                self._leave_out(actor.machine, model)
            return ()
        actor.ready = True
        self.pool.ready(actor.machine.id)
        self._note_model(model, actor.machine)
        self._ask(actor)
        return ()

    def _note_model(self, model: Model, machine: Machine) -> None:
        if self.versions is None:
            self.versions = model.versions
            self.tell(f"workers: {len(self.actors)}, on {_machines(self.slots)}")
            for line in model.notices:
                self.tell(line)
            if model.info is not None:
                self.on_model(model.info)
        for name, version in model.versions.items():
            if version != self.versions.get(name):
                self.tell(
                    f"{machine.name} has {name} {version}, others {self.versions.get(name)}: "
                    "its cells may differ from those run elsewhere"
                )

    def _ask(self, actor: _Actor) -> None:
        """Hand over further cells, and ask for what has ended."""
        soon = time.monotonic() - STARTING
        among = sum(each.ready or each.since > soon for each in self.actors)
        cells = self.scheduler.take(actor, among)
        ref = actor.handle.exchange.remote(cells, PAUSE * max(1.0, len(self.actors) / 50))
        self.answers[ref] = partial(self._reported, actor)

    def _reported(self, actor: _Actor, ref: Any) -> Iterator[CellResult]:
        try:
            report: Report = self.ray.get(ref)
        except self.ray.exceptions.RayError:
            yield from self._lose(actor, f"a worker on {actor.machine.name} died")
            return
        if report.tokens:
            self.on_tokens(report.tokens)
        ended = [each for each in report.outcomes if self.scheduler.done(each.record.index)]
        self.deaths = 0 if ended else self.deaths
        if report.trouble is None and self.scheduler.unfinished:
            self._ask(actor)  # before anything is made of what came
        yield from ended
        if report.trouble is not None:
            yield from self._lose(actor, f"{actor.machine.name}: {report.trouble}")

    def _lose(self, actor: _Actor, why: str) -> Iterator[CellResult]:
        """Give a worker up; its cells go to others, and those that were lost too often are failed."""
        held = len(self.scheduler.held(actor))
        given_up = self.scheduler.lost(actor)
        self._end(actor)
        again = held - len(given_up)
        self.tell(f"{why}; {again} unfinished cell{'' if again == 1 else 's'} will run again")
        for index in given_up:
            times = self.scheduler.tries
            yield CellResult(
                cell_record(self.grid[index], error=f"given up after {times} tries: {why}")
            )
        self.deaths += 1
        if self.deaths > _DEATHS + 2 * len(self.actors):
            raise DecodecliError(
                f"{self.deaths} workers one after another died without finishing a cell; {why}",
                "is there enough memory? --batch-size takes fewer rows at once",
            )

    def _end(self, actor: _Actor) -> None:
        self.actors.discard(actor)
        if not self.pool.ended(actor.machine.id, was_ready=actor.ready):
            self.tell(f"no more workers on {actor.machine.name}: they die while they load")
        with contextlib.suppress(Exception):
            self.ray.kill(actor.handle)

    # --- Ray ------------------------------------------------------------------------------------

    def _pinned(self, remote: Any, machine: Machine, **options: Any) -> Callable[..., Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(machine.id, soft=False)
        return remote.options(scheduling_strategy=there, **options).remote

    def _answered(self) -> list[Any]:
        """The refs that can be read now; waits a little for the first."""
        if not self.answers:
            time.sleep(LOOK / 4)
            return []
        refs = list(self.answers)
        ready, _ = self.ray.wait(refs, num_returns=1, timeout=LOOK)
        if ready and len(refs) > 1:
            ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0)
        return ready


def _machines(found: Collection[Any]) -> str:
    return "1 machine" if len(found) == 1 else f"{len(found)} machines"


def _cause(error: BaseException) -> str:
    """The innermost cause of an error on another machine, which is the last line of Ray's many."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _absolute(model: str) -> str:
    """A folder's path as other processes can find it; a hub name or what is not here as it is."""
    local = os.path.expanduser(model)
    return os.path.abspath(local) if os.path.isdir(local) else model


def _asked_threads() -> int | None:
    """`OMP_NUM_THREADS` of this process; on a worker Ray sets it, to another end."""
    asked = os.environ.get("OMP_NUM_THREADS", "").strip()
    return int(asked) if asked.isdecimal() and int(asked) else None
