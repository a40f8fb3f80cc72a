"""The machine in plain words: what a figure depends on, and nothing that names the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "bitsandbytes", "llama-cpp-python")
_CPUINFO = Path("/proc/cpuinfo")


def describe(device: str = "cpu") -> dict[str, Any]:
    """CPU, cores that this process may use, memory, GPU where one is used, and versions.

    Args:
        device: what the benchmark runs on; a CUDA device is described too.
    """
    import torch

    return {
        "cpu": cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "memory_gib": memory_gib(),
        "gpu": _gpu(device),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": _versions(),
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "the library's own").lower(),
    }


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name as the system gives it."""
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        named = None
    if named:
        return " ".join(named[1].split())
    if platform.system() == "Darwin":
        done = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float | None:
    """Main memory in GiB, None where nothing tells."""
    try:
        import psutil  # comes with accelerate
    except ImportError:
        return None
    return round(float(psutil.virtual_memory().total) / 2**30, 1)


def free_memory(device: str) -> int | None:
    """Bytes free on the device, None where nothing tells."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _gpu(device: str) -> dict[str, Any] | None:
    if not device.startswith("cuda"):
        return None
    import torch

    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
    }


def _versions() -> dict[str, str]:
    import importlib.metadata

    import decodecli

    found = {"decodecli": decodecli.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def in_words(machine: dict[str, Any]) -> list[str]:
    """A few lines for people, from what `describe` gave."""
    versions = " · ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = f" · {machine['memory_gib']:g} GiB" if machine["memory_gib"] else ""
    cores = f"{machine['cores']} core" + ("s" if machine["cores"] != 1 else "")
    lines = [
        f"{machine['cpu']} ({machine['instructions']}) · {cores} usable{memory} · {machine['system']}",
        f"{versions} · OpenMP wait policy {machine['wait_policy']}",
    ]
    if machine["gpu"]:
        gpu = machine["gpu"]
        lines.insert(1, f"{gpu['name']} · {gpu['memory_gib']:g} GiB · CUDA {gpu['cuda']}")
    return lines
