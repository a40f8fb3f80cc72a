"""What goes wrong while a model is loaded, in one line on what it is and one on what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import replace

import torch

from decodecli.errors import DecodecliError, LoadError
from decodecli.models import device_memory, memory_estimate
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.model_files import first_line

# How a checkpoint may be quantized → what to install for it.
_PACKAGES = {
    "bitsandbytes": "bitsandbytes", "gptq": "gptqmodel", "awq": "gptqmodel", "hqq": "hqq",
    "aqlm": "aqlm", "quanto": "optimum-quanto", "eetq": "eetq", "torchao": "torchao",
    "compressed-tensors": "compressed-tensors", "fbgemm_fp8": "fbgemm-gpu", "higgs": "flute-kernel",
    "fp8": "kernels", "mxfp4": "kernels", "vptq": "vptq", "spqr": "spqr_quant", "quark": "amd-quark",
}  # fmt: skip

_NO_MEMORY = ("can't allocate memory", "cannot allocate memory")


def advice(checkpoint: Checkpoint, device: str, held: str, before: str = "") -> str:
    """What would fit where a model in the scheme `held` did not."""
    try:
        memory = device_memory.device_memory(device)
        if device.startswith("cuda"):  # what this process holds goes back with the model
            free = memory.free + torch.cuda.memory_reserved(device)
            memory = replace(memory, free=min(free, memory.total))
        return before + memory_estimate.what_fits(
            memory_estimate.Headers.of(checkpoint), memory, failed=held
        )
    except Exception:  # advice must not take the place of the error
        tried = "" if memory_estimate.why_not_quantized(device) else "--quantize nf4, "
        return f"{before}try {tried}--dtype bfloat16, or a smaller model"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: in PyTorch's words for each device, or in the
    system's, which PyTorch and safetensors pass on where a file cannot be mapped."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    said = str(error).lower()
    mapping = "unable to mmap" in said and f"({errno.ENOMEM})" in said
    return mapping or any(words in said for words in _NO_MEMORY)


@contextlib.contextmanager
def explained(checkpoint: Checkpoint, device: str, held: str) -> Iterator[None]:
    """Turn what loading libraries raise, Rust panics too, into one line."""
    try:
        yield
    except (DecodecliError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if out_of_memory(error):
            raise LoadError(
                f"{checkpoint.name} in {held} does not fit into the memory of {device}",
                advice(checkpoint, device, held),
            ) from error
        if isinstance(error, ImportError):
            raise _missing_package(checkpoint, held, error) from error
        if "dispatched on the CPU or the disk" in str(error):
            raise LoadError(
                f"{checkpoint.name}: weights in 4 or 8 bits must lie whole on "
                "one kind of device, and there is no room for them",
                "use --quantize none, which may spread to the CPU and the disk, or a smaller model",
            ) from error
        if "mismatch" in str(error):  # transformers points to a report that went to its log
            raise LoadError(
                f"the weights of {checkpoint.name} do not have the shapes that its config.json says",
                "copy the original model's config.json into the folder",
            ) from error
        raise LoadError(
            f"{checkpoint.name} cannot be loaded: {first_line(error)}",
            "is the folder complete? --debug shows where it failed",
        ) from error


def _missing_package(checkpoint: Checkpoint, method: str, error: ImportError) -> LoadError:
    """What to install for a checkpoint that is quantized already."""
    package = _PACKAGES.get(method)
    if package is None:
        return LoadError(
            f"{checkpoint.name} needs a package that is not installed: {first_line(error)}",
            "install it, or give another model",
        )
    return LoadError(
        f"{checkpoint.name} is quantized with {method}, which needs a package that is not installed",
        f"pip install {package}",
    )
