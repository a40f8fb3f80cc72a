"""`decodecli info`: versions, devices, folders, and what each `auto` would become here."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any

from decodecli import __version__
from decodecli.cli import options as o
from decodecli.cli.command import command
from decodecli.cli.output import write_answer

if TYPE_CHECKING:
    from decodecli.config import Effective
    from decodecli.models.machine import DeviceMemory
    from decodecli.settings import LoadParams

_DEVICE_KEYS = ("device", "name", "free_bytes", "total_bytes")
_PACKAGES = (
    *("torch", "transformers", "tokenizers", "safetensors", "accelerate", "bitsandbytes"),
    *("numpy", "rich", "typer"),
)


@command(
    *(o.MODEL_NAME, o.DEVICE, o.DTYPE, o.QUANTIZE, o.LOADER),
    *(o.format_of("text", "json"), o.COLOR, o.DEBUG),
)
def info(effective: Effective, format: str = "text") -> None:
    """Report versions, devices with free memory, folders, and what each auto would become here.

    [bold]Examples[/bold]

      decodecli info

      decodecli info --model ./my-model --format json
    """
    devices = _devices()
    report: dict[str, Any] = {
        "versions": _versions(),
        "devices": [dict(zip(_DEVICE_KEYS, astuple(each), strict=True)) for each in devices],
        "folders": _folders(),
        "auto": _auto(effective.load()),
    }
    memory = {
        each.device: f"{each.name} · {each.free / 2**30:.1f} of {each.total / 2**30:.1f} GiB free"
        for each in devices
    }
    rows = {**report, "devices": memory}
    lines = [
        line
        for title, values in rows.items()
        for line in (
            *("", "what auto becomes here" if title == "auto" else title),
            *(f"  {name:<15} {value}" for name, value in values.items()),
        )
    ]
    write_answer(report, format, lines[1:])


def _versions() -> dict[str, str]:
    import importlib.metadata
    import platform

    versions = {"decodecli": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _devices() -> list[DeviceMemory]:
    import os
    import platform

    import torch

    from decodecli.models.machine import device_memory

    names = [f"cuda:{k}" for k in range(torch.cuda.device_count() * torch.cuda.is_available())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = f"{platform.processor() or platform.machine()}, {cores} cores"
    return [*map(device_memory, names), replace(device_memory("cpu"), name=cpu)]


def _folders() -> dict[str, str]:
    import sys
    from importlib.resources import files

    from huggingface_hub import constants

    from decodecli.builtin import model_path
    from decodecli.config import configs_folder, user_config_path

    return {
        "package": str(files("decodecli")),
        "configs": str(configs_folder()),
        "user config": str(user_config_path()),
        "built-in model": str(model_path()),
        "hub cache": str(constants.HF_HUB_CACHE),
        "python": sys.executable,
    }


def _auto(params: LoadParams) -> dict[str, str]:
    """What the settings become for this model on this machine."""
    from decodecli.models.checkpoint import find_checkpoint
    from decodecli.models.loading import choose_loader
    from decodecli.models.resolve import choose_device, choose_dtype, choose_quantize

    device = choose_device(params.device)
    checkpoint = find_checkpoint(params, download=False)
    quantize = choose_quantize(params.quantize, device, checkpoint)
    dtype = choose_dtype(params.dtype, quantize, checkpoint)
    return {
        "model": f"{params.model} ({checkpoint.parameters:,} parameters)",
        "device": device,
        "dtype": dtype,
        "quantize": quantize,
        "loader": choose_loader(params, checkpoint, device, dtype, quantize),
    }
