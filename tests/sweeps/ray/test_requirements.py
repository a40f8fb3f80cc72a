"""Machines get the workers that they have room for, and no more of those that only die there."""

from __future__ import annotations

import sys

import pytest

from decodecli.errors import LoadError
from decodecli.settings import LoadParams
from decodecli.sweeps.ray.requirements import (
    CHANCES,
    Machine,
    Requirements,
    WorkerPool,
    WorkerSlot,
    choose_kind,
    offers,
    worker_slots,
)

LAPTOP = Machine("l", "laptop", cpus=8, gpus=0)
EIGHT = Machine("e", "eight", cpus=96, gpus=8)
HEAD = Machine("h", "head", cpus=0, gpus=0)


@pytest.mark.parametrize(
    ("device", "machines", "kind"),
    [
        ("auto", [LAPTOP], "cpu"),
        ("auto", [LAPTOP, EIGHT], "cuda"),
        ("auto", [HEAD], None),
        ("cpu", [EIGHT], "cpu"),
        ("cuda:1", [LAPTOP], "cuda"),
        ("mps", [LAPTOP], "mps"),
    ],
)
def test_all_workers_are_of_one_kind(device, machines, kind):
    assert choose_kind(device, machines) == kind


def test_a_sweep_on_gpus_leaves_out_machines_without():
    assert [offers(each, "cuda") for each in (LAPTOP, EIGHT, HEAD)] == [False, True, False]
    assert [offers(each, "cpu") for each in (LAPTOP, EIGHT, HEAD)] == [True, True, False]


def test_a_gpu_is_a_seat_and_so_is_a_core_or_for_a_large_model_the_machine():
    assert worker_slots(EIGHT, "cuda", Requirements(48, 48)) == (8, WorkerSlot(0, 1, None))
    assert worker_slots(LAPTOP, "cpu", Requirements(4, 1)) == (4, WorkerSlot(1, 0, 1))
    assert worker_slots(LAPTOP, "cpu", Requirements(4, 4)) == (1, WorkerSlot(4, 0, 4))
    assert worker_slots(LAPTOP, "cpu", Requirements(4, 1), by_hand=True) == (8, WorkerSlot(1, 0, 1))
    assert worker_slots(LAPTOP, "cpu", Requirements(4, 16)) == (1, WorkerSlot(8, 0, 16))
    assert worker_slots(LAPTOP, "mps", Requirements(4, 1)) == (1, WorkerSlot(1, 0, None))


def test_memory_limits_the_workers_unless_a_number_was_asked_for():
    small = Machine("s", "small", cpus=64, gpus=0, memory=32e9)
    assert worker_slots(small, "cpu", Requirements(64, 1, 15e9)) == (2, WorkerSlot(1, 0, 1))
    assert worker_slots(small, "cpu", Requirements(64, 1, 50e9)) == (1, WorkerSlot(1, 0, 1))
    assert worker_slots(small, "cpu", Requirements(64, 1, 15e9), by_hand=True) == (
        64,
        WorkerSlot(1, 0, 1),
    )


def start_all(pool: WorkerPool) -> list[str]:
    found = pool.openings()
    for machine in found:
        pool.started(machine)
    return found


def test_the_dead_are_replaced_and_newcomers_used():
    pool = WorkerPool(None)
    pool.offer("a", 2)
    assert start_all(pool) == ["a", "a"]
    assert start_all(pool) == []
    pool.ready("a")
    pool.ended("a", was_ready=True)
    pool.offer("b", 1)
    assert sorted(start_all(pool)) == ["a", "b"]
    pool.withdraw("a")
    pool.ended("a", was_ready=True)
    assert start_all(pool) == [], "that machine is gone"


def test_a_limit_is_spread_over_the_machines():
    pool = WorkerPool(3)
    pool.offer("a", 8)
    pool.offer("b", 8)
    assert sorted(start_all(pool)) in (["a", "a", "b"], ["a", "b", "b"])
    assert start_all(pool) == []


def test_a_machine_where_workers_die_before_they_are_ready_is_left_alone():
    pool = WorkerPool(None)
    pool.offer("a", 1)
    for chance in range(CHANCES):
        assert start_all(pool) == ["a"]
        assert pool.ended("a", was_ready=False) is (chance < CHANCES - 1)
    assert start_all(pool) == []


def test_a_worker_that_was_ready_clears_its_machine():
    pool = WorkerPool(None)
    pool.offer("a", 1)
    for _ in range(2 * CHANCES):
        assert start_all(pool) == ["a"]
        pool.ended("a", was_ready=False)
        assert start_all(pool) == ["a"]
        pool.ready("a")
        assert pool.ended("a", was_ready=True)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    from decodecli.sweeps.cells import Prompt
    from decodecli.sweeps.grid import plan
    from decodecli.sweeps.ray.engine import run_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    grid = plan({"seed": 0}, [Prompt("a", "a")])
    with pytest.raises(LoadError, match=r"decodecli\[ray\]"):
        list(run_on_ray(LoadParams(), grid, [0]))
