"""How many threads: what was asked for, else what is set, else the model's size."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodecli.models import machine as hardware
from decodecli.models.machine import choose_threads, usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine([[0, 1], [2, 3]], quota="50000 100000")`: cores with their hardware threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def make(cores: list[list[int]], allowed: set[int] | None = None, quota: str = "max 100000"):
        cpus, group = tmp_path / "cpu", tmp_path / "cgroup"
        for core in cores:
            for number in core:
                folder = cpus / f"cpu{number}" / "topology"
                folder.mkdir(parents=True)
                (folder / "thread_siblings_list").write_text(",".join(map(str, core)) + "\n")
        group.mkdir()
        (group / "cpu.max").write_text(quota + "\n")
        monkeypatch.setattr(hardware, "_CPUS", cpus)
        monkeypatch.setattr(hardware, "_CGROUP", group)
        found = allowed or {number for core in cores for number in core}
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: found, raising=False)

    return make


def test_a_small_model_gets_one_thread_and_a_large_one_every_core(machine):
    machine([[0], [1], [2]])
    assert choose_threads(6_000_000, None) == 1
    assert choose_threads(49_999_999, None) == 1
    assert choose_threads(50_000_000, None) == 3


def test_hardware_threads_of_one_core_count_once(machine):
    machine([[0, 4], [1, 5], [2, 6], [3, 7]])
    assert usable_cores() == 4


def test_only_the_cores_that_the_process_may_use_count(machine):
    machine([[0, 4], [1, 5], [2, 6], [3, 7]], allowed={0, 4, 1})
    assert usable_cores() == 2


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("150000 100000", 2), ("100000 100000", 1), ("1000 100000", 1), ("max 100000", 4), ("?", 4)],
)
def test_a_quota_of_the_control_group_is_kept(machine, quota, expected):
    machine([[0], [1], [2], [3]], quota=quota)
    assert usable_cores() == expected


def test_what_the_environment_says_is_left_alone(machine, monkeypatch):
    machine([[0], [1]])
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert choose_threads(10**9, None) is None
    assert choose_threads(10**6, None) is None
    assert choose_threads(10**6, 5) == 5


@given(parameters=st.integers(0, 10**12), asked=st.integers(1, 512))
def test_what_was_asked_for_goes_first(parameters, asked):
    assert choose_threads(parameters, asked) == asked


@given(parameters=st.integers(0, 10**12))
def test_there_is_always_at_least_one_thread_and_no_more_than_cpus(parameters):
    found = choose_threads(parameters, None)
    assert found is None or 1 <= found <= (os.cpu_count() or math.inf)
