"""What this machine has: CPU cores for a model's threads, and the memory of its devices.

Every layer of a model on the CPU ends in a barrier at which the threads wait for one another. A small
model's layers take microseconds, so there the waiting costs more than the help is worth, above all
beside another busy process; a large model is bound by memory, which the physical cores share without
help from their second hardware threads.
"""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

from decodecli.errors import UsageError

ONE_THREAD_BELOW = 50_000_000  # parameters
_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
# Of version 2 and 1: the limit, what is used, the cached files in it, which go when memory is wanted.
_MEMORY_LIMITS = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)  # fmt: skip


def choose_threads(parameters: int, requested: int | None) -> int | None:
    """Threads for a model of this many parameters; None to leave what is set.

    What was asked for goes first, then `OMP_NUM_THREADS` (left as it is), then the size: one thread
    below 50 M parameters, else all physical cores that this process may use.
    """
    if requested is not None:
        return requested
    if os.environ.get("OMP_NUM_THREADS", "").strip():
        return None
    return threads_for(parameters)


def check_threads(requested: int | None) -> None:
    """Raises `UsageError` for more threads than this machine has CPUs: PyTorch crashes when it cannot
    start them all."""
    most = os.cpu_count() or 1
    if requested is not None and requested > most:
        raise UsageError(
            f"--threads must be at most {most}, the CPUs of this machine, got {requested}",
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
    cores = set()
    for cpu in allowed:
        try:  # what the hardware threads of one core have in common
            siblings = _CPUS / f"cpu{cpu}/topology/thread_siblings_list"
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    limits = [float(len(cores))]
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = " ".join((_CGROUP / file).read_text() for file in files).split()[:2]
            limits.append(int(quota) / int(period))
    return max(1, math.ceil(min(limit for limit in limits if limit > 0)))


@dataclass(frozen=True)
class DeviceMemory:
    """A device and its memory in bytes."""

    device: str
    name: str
    free: int
    total: int


def device_memory(device: str) -> DeviceMemory:
    """A device's memory: a GPU's own, or this machine's, less where a control group sets a limit."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(device, torch.cuda.get_device_name(device), free, total)
    if device == "mps":
        import torch

        total = torch.mps.recommended_max_memory()
        return DeviceMemory(device, "Metal", total - torch.mps.driver_allocated_memory(), total)
    import psutil  # comes with accelerate

    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    for limit_file, usage_file, cached in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no limit
            limit = int((_CGROUP / limit_file).read_text())
            used = int((_CGROUP / usage_file).read_text())
            lines = (_CGROUP / usage_file).with_name("memory.stat").read_text().splitlines()
            parts = dict(line.split(maxsplit=1) for line in lines)
            used -= sum(int(parts.get(name, 0)) for name in cached)
            free, total = min(free, limit - max(used, 0)), min(total, limit)
    return DeviceMemory("cpu", "this machine's memory", max(free, 0), total)
