"""How much memory a device has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (  # of version 2 and of version 1: the limit, what is used, the cached files among it
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)  # fmt: skip


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

    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    for files in _LIMITS:
        try:
            limit, used = _cgroup_memory(*files)
        except (OSError, ValueError):  # no limit
            continue
        free, total = min(free, limit - used), min(total, limit)
    return DeviceMemory("cpu", "this machine's memory", max(free, 0), total)


def _cgroup_memory(limit: str, used: str, cached: tuple[str, ...]) -> tuple[int, int]:
    """A control group's limit and what it uses of it, in bytes; its cached files go when memory is
    wanted, and do not count.

    Raises:
        OSError, ValueError: there is no limit.
    """
    allowed, used_bytes = int((_CGROUP / limit).read_text()), int((_CGROUP / used).read_text())
    lines = (_CGROUP / used).with_name("memory.stat").read_text().splitlines()
    parts = dict(line.split(maxsplit=1) for line in lines)
    return allowed, max(used_bytes - sum(int(parts.get(name, 0)) for name in cached), 0)
