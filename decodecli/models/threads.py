"""How many threads a model on the CPU should work with.

Every layer ends in a barrier at which the threads wait for one another. A small model's layers take
microseconds, so there the waiting costs more than the help is worth, above all beside another busy
process; a large model is bound by memory, which the physical cores share without help from their
second hardware threads.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from decodecli.errors import UsageError

ONE_THREAD_BELOW = 50_000_000  # parameters
_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def choose_threads(parameters: int, asked: int | None) -> int | None:
    """Threads for a model of this many parameters; None to leave what is set.

    What was asked for goes first, then `OMP_NUM_THREADS` (left as it is), then the size: one thread
    below 50 M parameters, else all physical cores that this process may use.
    """
    if asked is not None:
        return asked
    if os.environ.get("OMP_NUM_THREADS", "").strip():
        return None
    return threads_for(parameters)


def check_threads(asked: int | None) -> None:
    """Raises `UsageError` for more threads than this machine has CPUs: PyTorch crashes when it cannot
    start them all."""
    most = os.cpu_count() or 1
    if asked is not None and asked > most:
        raise UsageError(
            f"--threads must be at most {most}, the CPUs of this machine, got {asked}",
            "leave it out to choose by the model's size",
        )


def threads_for(parameters: int) -> int:
    """Threads by the model's size alone."""
    return 1 if parameters < ONE_THREAD_BELOW else usable_cores()


def usable_cores() -> int:
    """Physical cores that this process may use, by its affinity and its control group's quota."""
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    cores = {_core(cpu) for cpu in allowed}
    return max(1, math.ceil(min(len(cores), _quota())))


def _core(cpu: int) -> str:
    """What the hardware threads of one core have in common; the CPU itself where nobody tells."""
    with contextlib.suppress(OSError):
        return (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    return str(cpu)


def _quota() -> float:
    """CPUs' worth of time that the control group grants, infinite where it sets no limit."""
    quotas = [math.inf]
    for read in (_version_2, _version_1):
        with contextlib.suppress(OSError, ValueError, IndexError):
            quotas.append(read())
    return min(quota for quota in quotas if quota > 0)


def _version_2() -> float:
    limit, period = (_CGROUP / "cpu.max").read_text().split()[:2]
    return math.inf if limit == "max" else int(limit) / int(period)


def _version_1() -> float:
    limit = int((_CGROUP / "cpu/cpu.cfs_quota_us").read_text())
    return limit / int((_CGROUP / "cpu/cpu.cfs_period_us").read_text()) if limit > 0 else math.inf
