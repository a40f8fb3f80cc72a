"""What `auto` becomes on this machine: the device, the number type, the quantization."""

from __future__ import annotations

import torch

from decodecli.errors import LoadError, UsageError
from decodecli.memory_size import memory_limits
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.memory_estimate import has_bitsandbytes
from decodecli.settings import LoadParams

BILLION = 1_000_000_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(requested: str) -> str:
    """What `--device` becomes on this machine: cuda:N, mps or cpu.

    Raises:
        UsageError: the device asked for is not there.
    """
    if requested == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if requested.startswith("cuda"):
        count, index = torch.cuda.device_count(), int(requested.partition(":")[2] or 0)
        if not torch.cuda.is_available():
            raise UsageError(
                f"--device {requested}: PyTorch sees no CUDA device here",
                "use --device cpu, or install a PyTorch build with CUDA",
            )
        if index >= count:
            raise UsageError(
                f"--device {requested}: there are {count} CUDA devices here",
                "they count from cuda:0",
            )
        return f"cuda:{index}"
    if requested == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: there is no Metal device here", "use --device cpu")
    return requested


def choose_quantize(requested: str, device: str, checkpoint: Checkpoint) -> str:
    """What `--quantize` becomes: a scheme of ours, `none`, or the scheme the checkpoint is in.

    Raises:
        LoadError: the scheme cannot work with this checkpoint or on this device.
    """
    stored = checkpoint.config.get("quantization_config")
    if stored:
        fields = stored if isinstance(stored, dict) else {}
        method = str(fields.get("quant_method", "quantized"))
        if requested not in ("auto", "none"):
            raise LoadError(
                f"--quantize {requested}: {checkpoint.name} is already quantized ({method})",
                "leave --quantize out",
            )
        return method
    if requested == "auto":
        large = checkpoint.parameters >= BILLION
        return "nf4" if large and device.startswith("cuda") and has_bitsandbytes() else "none"
    if requested != "none":
        if device == "mps":
            raise LoadError(
                f"--quantize {requested} does not work on mps",
                "use --quantize none or --device cpu",
            )
        if not has_bitsandbytes():
            raise LoadError(
                f"--quantize {requested} needs the package bitsandbytes, which is not installed",
                "pip install bitsandbytes, or use --quantize none",
            )
    return requested


def choose_dtype(requested: str, quantize: str, checkpoint: Checkpoint) -> str:
    """What `--dtype` becomes: float32 for models below 1 B parameters, else as stored; with 4- and
    8-bit weights the type of computation, bfloat16."""
    if requested != "auto":
        return requested
    if quantize in ("nf4", "fp4", "int8"):
        return "bfloat16"
    if checkpoint.parameters < BILLION and quantize == "none":
        return "float32"
    text = checkpoint.config.get("text_config")
    parts = [checkpoint.config, text if isinstance(text, dict) else {}]
    values = (part.get(key) for part in parts for key in ("dtype", "torch_dtype"))
    stored = next(filter(None, values), None)
    return stored if isinstance(stored, str) and stored in DTYPES else "float32"


def check_max_memory(params: LoadParams) -> None:
    """Refuse a limit for a GPU that is not there.

    Raises:
        UsageError: there is one.
    """
    if params.max_memory is None:
        return
    count = torch.cuda.device_count()
    for device in memory_limits(params.max_memory):
        if isinstance(device, int) and device >= count:
            raise UsageError(
                f"--max-memory {params.max_memory}: there is no CUDA device {device} here",
                f"there are {count}; limit cpu, or leave it out",
            )
