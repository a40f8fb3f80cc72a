"""A grid over a Ray cluster: a worker per GPU or per core, cells as work, results as they end.

`scheduler` says who works on what and `requirements` where workers are; here is the cluster itself. A
worker is asked for one exchange after another: further cells go in, what has ended comes out. Nothing
is kept on the cluster, so that whatever happens to a worker, its machine, or the answer on its way, is
one case: the exchange fails, the worker is given up, and its unfinished cells go to others.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn

import decodecli
from decodecli.errors import DecodecliError, LoadError
from decodecli.models.machine import usable_cores
from decodecli.ranges import check_positive
from decodecli.records.run import ModelInfo
from decodecli.settings import LoadParams
from decodecli.sweeps.cells import CellResult, cell_record
from decodecli.sweeps.grid import Grid
from decodecli.sweeps.ray.connection import cause, connected, import_ray
from decodecli.sweeps.ray.requirements import (
    Machine,
    WorkerPool,
    WorkerSlot,
    choose_kind,
    offers,
    worker_slots,
)
from decodecli.sweeps.ray.scheduler import Scheduler
from decodecli.sweeps.ray.worker import (
    Model,
    Options,
    Problem,
    Report,
    Worker,
    load_model,
    portable,
    survey,
)

POLL_INTERVAL = 1.0  # seconds between two looks at the cluster
REPORT_INTERVAL = 0.25  # the longest that a worker keeps news of drawn tokens to itself, seconds
START_TIMEOUT = 60.0  # a worker that is not ready after so long may be waiting for room, seconds
MACHINE_TIMEOUT = 600.0  # how long to wait for a machine while there is none, seconds
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
    """Run the cells `todo` of the grid on a Ray cluster; results come as cells end, each once.

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
        on_model: called once, before the first result, with what the first worker has loaded.
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
    load_there = portable(load)
    cpus = actors and max(os.cpu_count() or 1, actors * (load_there.threads or usable_cores()))
    with connected(ray, address, cpus) as is_new:
        cluster = _Cluster(ray, load_there, grid, options, actors, is_new, make)
        cluster.notice = notice or cluster.notice
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


@dataclass
class _Cluster:
    """The workers, what they have been asked, and what to do with the answers."""

    ray: Any
    load: LoadParams
    grid: Grid
    options: Options
    wanted: int | None  # workers; None for as many as there is room for
    is_new: bool
    make: Callable[[LoadParams, Options], Model]
    notice: Callable[[str], None] = lambda line: None
    on_tokens: Callable[[int], None] = lambda count: None
    on_model: Callable[[ModelInfo], None] = lambda info: None
    kind: str | None = None
    machines: dict[str, Machine] = field(default_factory=dict)
    slots: dict[str, WorkerSlot] = field(default_factory=dict)
    excluded: set[str] = field(default_factory=set)
    actors: set[_Actor] = field(default_factory=set)
    # What to do with an answer, by the ref that Ray gave for it.
    answers: dict[Any, Callable[[Any], Iterable[CellResult]]] = field(default_factory=dict)
    problem: Problem | None = None
    versions: dict[str, str] | None = None
    deaths: int = 0  # of workers, since a cell was last finished
    _wait_noted: bool = False
    _idle_since: float | None = None

    def run(self, todo: Sequence[int]) -> Iterator[CellResult]:
        """The results of these cells."""
        self.pool = WorkerPool(self.wanted)
        self._shared = (self.ray.put(self.grid), self.options, self.make)  # to every worker
        self._worker = self.ray.remote(max_restarts=0, max_task_retries=0)(Worker)
        self._survey = self.ray.remote(max_retries=0, num_cpus=0)(survey)
        per_prompt = max(1, len(self.grid) // len(self.grid.prompts))  # prompts are outermost
        self.scheduler = Scheduler(
            todo, lambda index: index // per_prompt, batch_size=self.options.batch_size
        )
        polled = -POLL_INTERVAL
        while self.scheduler.unfinished:
            if time.monotonic() - polled >= POLL_INTERVAL:
                self._update_machines()
                self._start_workers()
                self._check_idle()
                polled = time.monotonic()
            if not self.answers:
                time.sleep(POLL_INTERVAL / 4)
                continue
            refs = list(self.answers)
            ready, _ = self.ray.wait(refs, num_returns=1, timeout=POLL_INTERVAL)
            if ready and len(refs) > 1:  # what else can be read now
                ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0)
            for ref in ready:
                yield from self.answers.pop(ref)(ref)

    def close(self) -> None:
        """End every worker."""
        for actor in self.actors:
            with contextlib.suppress(Exception):
                self.ray.kill(actor.handle)
        if self.wanted is not None and not self.is_new:
            self._demand(0)

    def _update_machines(self) -> None:
        """Note machines that have come and gone."""
        alive = {
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
        for gone in self.machines.keys() - alive.keys():
            self.pool.withdraw(gone)
            self.notice(f"{self.machines.pop(gone).name} has left the cluster")
        if self.kind is None:
            self.kind = choose_kind(self.load.device, alive.values())
            if self.kind is None:
                return
            if self.load.max_memory is None or self.kind != "cuda":
                # The number of a GPU means nothing elsewhere: a worker sees its own alone.
                self.load = replace(self.load, device=self.kind)
        for machine in alive.values():
            if machine.id not in self.machines and offers(machine, self.kind):
                self.machines[machine.id] = machine
                ask = self._pinned(self._survey, machine)
                self.answers[ask(self.load)] = partial(self._surveyed, machine)

    def _surveyed(self, machine: Machine, ref: Any) -> Iterable[CellResult]:
        try:
            needs = self.ray.get(ref)
        except self.ray.exceptions.TaskUnschedulableError:
            return ()  # the machine has just left: the next look at the cluster says so
        except Exception as error:  # of Ray, or of a package that is not there
            needs = Problem(cause(error), "install decodecli on every machine of the cluster")
        if isinstance(needs, Problem):
            self._exclude(machine, needs)
        elif needs.version != decodecli.__version__:
            difference = f"it has decodecli {needs.version}, not {decodecli.__version__}"
            self._exclude(machine, Problem(difference, "install the same version everywhere"))
        elif machine.id in self.machines:
            room, slot = worker_slots(
                machine, self.kind or "cpu", needs, by_hand=self.wanted is not None
            )
            self.slots[machine.id] = slot
            self.pool.offer(machine.id, room)
            if self.versions is not None:  # the sweep is under way
                self.notice(f"{machine.name} has joined: room for {room} more")
            self._demand(self.wanted, slot)
            self._start_workers()
        return ()

    def _exclude(self, machine: Machine, problem: Problem) -> None:
        self.pool.withdraw(machine.id)
        if machine.id not in self.machines or machine.id in self.excluded:
            return  # it is gone, and that was it; or it is known
        self.problem = problem
        self.excluded.add(machine.id)
        if len(self.machines) > 1:  # else it is the end, and the error says it
            self.notice(f"no more workers on {machine.name}: {problem.message}")

    def _demand(self, count: int | None, slot: WorkerSlot | None = None) -> None:
        """Tell an autoscaler, if there is one, what to make room for; 0 to take that back."""
        if self.is_new or count is None:
            return
        from ray.autoscaler.sdk import request_resources

        each = {"GPU": slot.gpus} if slot and slot.gpus else {"CPU": slot.cpus if slot else 1}
        with contextlib.suppress(Exception):  # a wish
            request_resources(bundles=[each] * count)

    def _check_idle(self) -> None:
        """Say where workers wait, and give up where none is to be expected any more."""
        now = time.monotonic()
        since = min((each.since for each in self.actors), default=now)
        none_ready = not any(each.ready for each in self.actors)
        if none_ready and now - since > START_TIMEOUT and not self._wait_noted:
            self.notice("no worker has started yet: the cluster may be busy with other work")
            self._wait_noted = True
        if self.actors or self.answers:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
            if self.machines or self.is_new:
                self._give_up()
            self.notice(f"waiting for a machine with a {'GPU' if self.kind == 'cuda' else 'CPU'}")
            self._demand(self.wanted, WorkerSlot(1, float(self.kind == "cuda"), None))
        elif now - self._idle_since > MACHINE_TIMEOUT or self.machines:
            self._give_up()

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

    def _start_workers(self) -> None:
        """Start the workers that there is room for."""
        for name in self.pool.openings():
            machine, slot = self.machines[name], self.slots[name]
            load = self.load if slot.threads is None else replace(self.load, threads=slot.threads)
            start = self._pinned(self._worker, machine, num_cpus=slot.cpus, num_gpus=slot.gpus)
            actor = _Actor(start(load, *self._shared), machine, time.monotonic())
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
                self._exclude(actor.machine, model)
            return ()
        actor.ready = True
        self.pool.ready(actor.machine.id)
        if self.versions is None:  # it is the first
            self.versions = model.versions
            machines = f"{len(self.slots)} machine{'' if len(self.slots) == 1 else 's'}"
            self.notice(f"workers: {len(self.actors)}, on {machines}")
            for line in model.notices:
                self.notice(line)
            if model.info is not None:
                self.on_model(model.info)
        for name, version in model.versions.items():
            if version != self.versions.get(name):
                self.notice(
                    f"{actor.machine.name} has {name} {version}, others {self.versions.get(name)}: "
                    "its cells may differ from those run elsewhere"
                )
        self._ask(actor)
        return ()

    def _ask(self, actor: _Actor) -> None:
        """Hand over further cells, and ask for what has ended."""
        soon = time.monotonic() - START_TIMEOUT
        among = sum(each.ready or each.since > soon for each in self.actors)
        cells = self.scheduler.take(actor, among)
        ref = actor.handle.exchange.remote(cells, REPORT_INTERVAL * max(1.0, len(self.actors) / 50))
        self.answers[ref] = partial(self._reported, actor)

    def _reported(self, actor: _Actor, ref: Any) -> Iterator[CellResult]:
        try:
            report: Report = self.ray.get(ref)
        except self.ray.exceptions.RayError:
            yield from self._drop(actor, f"a worker on {actor.machine.name} died")
            return
        if report.tokens:
            self.on_tokens(report.tokens)
        ended = [each for each in report.results if self.scheduler.done(each.record.index)]
        self.deaths = 0 if ended else self.deaths
        if report.trouble is None and self.scheduler.unfinished:
            self._ask(actor)  # before anything is made of what came
        yield from ended
        if report.trouble is not None:
            yield from self._drop(actor, f"{actor.machine.name}: {report.trouble}")

    def _drop(self, actor: _Actor, why: str) -> Iterator[CellResult]:
        """Give a worker up; its cells go to others, and those that were lost too often are failed."""
        held = len(self.scheduler.held(actor))
        given_up = self.scheduler.lost(actor)
        self._end(actor)
        again = held - len(given_up)
        self.notice(f"{why}; {again} unfinished cell{'' if again == 1 else 's'} will run again")
        error = f"given up after {self.scheduler.tries} tries: {why}"
        for index in given_up:
            yield CellResult(cell_record(self.grid[index], error=error))
        self.deaths += 1
        if self.deaths > _DEATHS + 2 * len(self.actors):
            raise DecodecliError(
                f"{self.deaths} workers one after another died without finishing a cell; {why}",
                "is there enough memory? --batch-size takes fewer rows at once",
            )

    def _end(self, actor: _Actor) -> None:
        self.actors.discard(actor)
        if not self.pool.ended(actor.machine.id, was_ready=actor.ready):
            self.notice(f"no more workers on {actor.machine.name}: they die while they load")
        with contextlib.suppress(Exception):
            self.ray.kill(actor.handle)

    def _pinned(self, remote: Any, machine: Machine, **options: Any) -> Callable[..., Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(machine.id, soft=False)
        return remote.options(scheduling_strategy=there, **options).remote
