"""What goes wrong while a model is loaded, in one line on what it is and one on what to do."""

from __future__ import annotations

import contextlib
import errno
import reprlib
import traceback
from collections.abc import Iterator
from dataclasses import replace

import torch

from decodecli.errors import DecodecliError, LoadError
from decodecli.models import machine, memory_estimate
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.model_files import first_line, reason

# Where transformers refuses a plan of devices for 4 and 8 bits, by a ValueError.
_BITSANDBYTES = (
    "transformers.quantizers.quantizer_bnb_4bit", "transformers.quantizers.quantizer_bnb_8bit",
)  # fmt: skip
# How a checkpoint may be quantized → what to install for it.
_PACKAGES = {
    "bitsandbytes": "bitsandbytes", "gptq": "gptqmodel", "awq": "gptqmodel", "hqq": "hqq",
    "aqlm": "aqlm", "quanto": "optimum-quanto", "eetq": "eetq", "torchao": "torchao",
    "compressed-tensors": "compressed-tensors", "fbgemm_fp8": "fbgemm-gpu", "higgs": "flute-kernel",
    "fp8": "kernels", "mxfp4": "kernels", "vptq": "vptq", "spqr": "spqr_quant", "quark": "amd-quark",
}  # fmt: skip


def advice(checkpoint: Checkpoint, device: str, held: str, before: str = "") -> str:
    """What would fit where a model in the scheme `held` did not."""
    try:
        memory = machine.device_memory(device)
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
    """Whether an exception says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # PyTorch has only words for it where the system refuses memory or the mapping of a file.
    words = str(error).lower()
    return "can't allocate memory" in words or "cannot allocate memory" in words


@contextlib.contextmanager
def explained(checkpoint: Checkpoint, device: str, held: str) -> Iterator[None]:
    """Turn what loading libraries raise, Rust panics too, into one line."""
    name = checkpoint.name
    try:
        yield
    except (DecodecliError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        raised_in = frame.f_globals.get("__name__", "")
        if out_of_memory(error):
            message = f"{name} in {held} does not fit into the memory of {device}"
            hint = advice(checkpoint, device, held)
        elif isinstance(error, ImportError) and held in _PACKAGES:
            message = (
                f"{name} is quantized with {held}, which needs a package that is not installed"
            )
            hint = f"pip install {_PACKAGES[held]}"
        elif isinstance(error, ImportError):
            message = f"{name} needs a package that is not installed: {first_line(error)}"
            hint = "install it, or give another model"
        elif isinstance(error, ValueError) and raised_in in _BITSANDBYTES:
            message = (
                f"{name}: weights in 4 or 8 bits must lie whole on one kind of device, and there "
                "is no room for them"
            )
            hint = (
                "use --quantize none, which may spread to the CPU and the disk, or a smaller model"
            )
        elif checkpoint.config.get("quantization_config") and isinstance(error, TypeError):
            message = f"{name} cannot be loaded: config.json says quantization_config = "
            message += (
                f"{reprlib.repr(checkpoint.config['quantization_config'])}: {first_line(error)}"
            )
            hint = "copy the original model's config.json into the folder"
        else:
            message = f"{name} cannot be loaded: {reason(error, checkpoint.folder)}"
            hint = "is the folder complete? --debug shows where it failed"
        raise LoadError(message, hint) from error
