"""Weights in 4 and 8 bits through bitsandbytes: asked for, checked, kept in the cache.

bitsandbytes takes more than a second to import; nothing here does so before it is needed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decodecli.errors import LoadError
from decodecli.memory_size import memory_size
from decodecli.models import quantized_cache
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.load_errors import out_of_memory
from decodecli.models.model_files import first_line

SCHEMES = ("nf4", "fp4", "int8")


def scheme_settings(scheme: str, dtype: str) -> Any:
    """transformers' settings for one of `SCHEMES`; `dtype` is that of the computation."""
    from transformers import BitsAndBytesConfig

    if scheme == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=scheme,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(
            torch, dtype
        ),  # the library's float32 default is silently slow
    )


def cached_file(checkpoint: Checkpoint, scheme: str, dtype: str, device: str) -> Path | None:
    """The file of an earlier run's quantized weights, None where there is none."""
    if scheme not in SCHEMES:
        return None
    path = quantized_cache.entry_for(checkpoint, scheme, dtype, device)
    return path if path is not None and path.is_file() else None


def load_cached(checkpoint: Checkpoint, scheme: str, dtype: str, device: str) -> Any | None:
    """The model as an earlier run quantized it; None where no usable file is kept.

    A file that is not what it should be goes; one that only could not be read now stays.

    Raises:
        RuntimeError, OSError: memory ran out.
    """
    path = cached_file(checkpoint, scheme, dtype, device)
    if path is None:
        return None
    try:
        empty = _without_weights(checkpoint, dtype)
        network = quantized_cache.restore(path, empty, device)
    except quantized_cache.Unusable:
        with contextlib.suppress(OSError):  # cut short, or not what it should be: made again
            path.unlink()
        return None
    except (OSError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        return None
    _as_loaded(network, checkpoint, scheme, dtype)
    return network.eval()


def cache(
    network: nn.Module, checkpoint: Checkpoint, scheme: str, dtype: str, device: str
) -> tuple[str, ...]:
    """Write a quantized model to the cache; returns the notices about it."""
    path = quantized_cache.entry_for(checkpoint, scheme, dtype, device)
    if path is None:
        return ()
    try:
        quantized_cache.store(network, path, checkpoint, scheme, dtype)
    except (OSError, quantized_cache.Unusable) as error:
        why = getattr(error, "strerror", None) or str(error)
        return (f"the quantized weights could not be kept for the next start: {why}",)
    return (
        f"the quantized weights are kept for the next start ({memory_size(path.stat().st_size)}); "
        "decodecli models cache shows and clears them",
    )


def _without_weights(checkpoint: Checkpoint, dtype: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, return_dict=True)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))


def _as_loaded(network: Any, checkpoint: Checkpoint, scheme: str, dtype: str) -> None:
    """What `from_pretrained` notes on a model besides its weights."""
    from transformers import GenerationConfig
    from transformers.quantizers import AutoHfQuantizer

    network.config.name_or_path = str(checkpoint.folder)
    if (checkpoint.folder / "generation_config.json").is_file() and network.can_generate():
        network.generation_config = GenerationConfig.from_pretrained(
            checkpoint.folder, local_files_only=True
        )
    quantizer = AutoHfQuantizer.from_config(scheme_settings(scheme, dtype), pre_quantized=False)
    network.is_quantized = True
    network.quantization_method = quantizer.quantization_config.quant_method
    network.hf_quantizer = quantizer
    quantizer.postprocess_model(network)


def check_quantized(network: Any, checkpoint: Checkpoint, scheme: str, device: str) -> None:
    """Make sure that the scheme took hold, and that every layer can be run on this device.

    Raises:
        LoadError: it did not, or one cannot.
    """
    if not prepare_layers(network, device):
        raise LoadError(
            f"--quantize {scheme} does not work for {checkpoint.name}: "
            "it has no linear layers that bitsandbytes can replace",
            "use --quantize none",
        )
    try:
        with torch.inference_mode():
            network(input_ids=torch.zeros((1, 2), dtype=torch.long, device=network.device))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # some architectures reach past their layers for raw weights
        raise LoadError(
            f"--quantize {scheme} does not work for {checkpoint.name} "
            f"({checkpoint.config.get('model_type')}): {first_line(error)}",
            "use --quantize none",
        ) from error


def prepare_layers(network: nn.Module, device: str) -> int:
    """Turn off bitsandbytes' packed kernel where a layer's shape does not suit it; returns how many
    layers are quantized."""
    import bitsandbytes.nn as bnb

    layers = [m for m in network.modules() if isinstance(m, bnb.Linear4bit | bnb.Linear8bitLt)]
    for layer in layers:
        # The packed kernel for CPUs takes whole blocks only; other shapes go the plain way.
        if device == "cpu" and (layer.in_features % 64 or layer.out_features % 32):
            layer.support_avx512bf16_for_cpu = False
    return len(layers)
