"""Amounts of memory as people write and read them."""

from __future__ import annotations

import re

from decodecli.errors import UsageError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def memory_size(size: int) -> str:
    """Bytes as people read them: `14.96 GiB`, `11.8 MiB`, `3.4 KiB`, `512 B`."""
    for name, digits in (("GiB", 2), ("MiB", 1), ("KiB", 1)):
        if abs(size) >= _UNITS[name.upper()]:
            return f"{size / _UNITS[name.upper()]:.{digits}f} {name}"
    return f"{size} B"


def memory_limits(text: str) -> dict[int | str, int]:
    """Bytes for each device, from `0=10GiB,cpu=30GiB`: GPUs by their number, and `cpu`.

    Raises:
        UsageError: it is not written like that, or names a device twice.
    """
    hint = "write it like 0=10GiB,cpu=30GiB"
    limits: dict[int | str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(
            r"\s*(?:(?:cuda:)?(\d+)|(cpu))\s*=\s*(\d+(?:\.\d+)?)\s*([KMG]i?B|)\s*",
            part,
            re.ASCII | re.IGNORECASE,
        )
        if not match:
            raise UsageError(f"--max-memory cannot be read: {text!r}", hint, "max_memory")
        device: int | str = int(match[1]) if match[1] else "cpu"
        if device in limits:
            raise UsageError(f"--max-memory names {device} twice: {text!r}", hint, "max_memory")
        limits[device] = int(float(match[3]) * _UNITS[match[4].upper()])
        if not limits[device]:
            problem = f"--max-memory gives {device} no memory: {text!r}"
            raise UsageError(problem, "leave the device out instead", "max_memory")
    return limits
