"""`decodecli info`: versions, devices, folders, and what each `auto` would become here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodecli import __version__
from decodecli.cli import options as o
from decodecli.cli import streams

if TYPE_CHECKING:
    from decodecli.settings import LoadParams

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "accelerate",
    "bitsandbytes",
    "numpy",
    "rich",
    "typer",
)


def info(
    model: o.Model = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    quantize: o.Quantize = None,
    format: o.text_or("text", "json") = None,  # type: ignore[valid-type]
    color: o.Color = None,
    debug: o.Debug = None,
) -> None:
    """Report versions, devices with free memory, folders, and what each auto would become here.

    [bold]Examples[/bold]

      decodecli info

      decodecli info --model ./my-model --format json
    """
    import json

    from decodecli.config import resolve
    from decodecli.settings import check_choice

    chosen = format or "text"
    check_choice("format", chosen, ("text", "json"))
    flags = {"model": model, "device": device, "dtype": dtype, "quantize": quantize}
    params = resolve(flags).load()
    report = {
        "versions": _versions(),
        "devices": _devices(),
        "folders": _folders(),
        "auto": _auto(params),
    }
    if chosen == "json":
        streams.write_stdout(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    else:
        streams.write_stdout(_as_text(report))


def _versions() -> dict[str, str]:
    import importlib.metadata
    import platform

    found = {"decodecli": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _devices() -> list[dict[str, Any]]:
    import os
    import platform

    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(_device(f"cuda:{index}", name, free, total))
    if torch.backends.mps.is_available():
        found.append(_device("mps", "Metal", None, None))
    free_memory, all_memory = _memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = f"{platform.processor() or platform.machine()}, {cores} cores"
    found.append(_device("cpu", name, free_memory, all_memory))
    return found


def _device(device: str, name: str, free: int | None, total: int | None) -> dict[str, Any]:
    return {"device": device, "name": name, "free_bytes": free, "total_bytes": total}


def _memory() -> tuple[int | None, int | None]:
    try:
        import psutil  # comes with accelerate

        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)
    except ImportError:
        return None, None


def _folders() -> dict[str, str]:
    import sys
    from pathlib import Path

    from huggingface_hub import constants

    from decodecli.builtin import model_path
    from decodecli.config import configs_folder, user_config_path

    return {
        "package": str(Path(__file__).parent.parent),
        "configs": str(configs_folder()),
        "user config": str(user_config_path()),
        "built-in model": str(model_path()),
        "hub cache": str(constants.HF_HUB_CACHE),
        "python": sys.executable,
    }


def _auto(params: LoadParams) -> dict[str, str]:
    """What the settings become for this model on this machine."""
    from decodecli.models.checkpoint import find_checkpoint
    from decodecli.models.loading import choose_device, choose_dtype, choose_quantize

    device = choose_device(params.device)
    checkpoint = find_checkpoint(params, download=False)
    quantize = choose_quantize(params.quantize, device, checkpoint)
    return {
        "model": f"{params.model} ({checkpoint.parameters:,} parameters)",
        "device": device,
        "dtype": choose_dtype(params.dtype, quantize, checkpoint),
        "quantize": quantize,
    }


def _as_text(report: dict[str, Any]) -> str:
    lines = ["versions"]
    lines += [f"  {name:<15} {version}" for name, version in report["versions"].items()]
    lines += ["", "devices"]
    for device in report["devices"]:
        memory = ""
        if device["total_bytes"]:
            free, total = (device[key] / 2**30 for key in ("free_bytes", "total_bytes"))
            memory = f" · {free:.1f} of {total:.1f} GiB free"
        lines.append(f"  {device['device']:<15} {device['name']}{memory}")
    lines += ["", "folders"]
    lines += [f"  {name:<15} {folder}" for name, folder in report["folders"].items()]
    lines += ["", "what auto becomes here"]
    lines += [f"  {name:<15} {value}" for name, value in report["auto"].items()]
    return "\n".join(lines) + "\n"
