"""Any causal language model, loaded by transformers: of every architecture, quantized, over devices."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch

from decodecli.errors import LoadError
from decodecli.library_logging import quiet_libraries
from decodecli.memory_size import memory_limits
from decodecli.models import quantization
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.memory_estimate import Headers
from decodecli.models.model_files import reason
from decodecli.models.resolve import DTYPES
from decodecli.settings import LoadParams


def load_model(
    params: LoadParams, checkpoint: Checkpoint, device: str, dtype: str, quantize: str
) -> tuple[Any, tuple[str, ...]]:
    """The model in evaluation mode, and notices of how it was loaded."""
    _check_architecture(checkpoint, params)
    device_map = device_map_of(params, checkpoint, device, dtype, quantize)
    if quantize in quantization.SCHEMES:
        cacheable = isinstance(device_map, dict)
        if cacheable:
            network = quantization.load_cached(checkpoint, quantize, dtype, device)
            if network is not None:
                return network, ()
        network = _from_pretrained(params, checkpoint, dtype, quantize, device_map)
        quantization.check_quantized(network, checkpoint, quantize, device)
        if cacheable:
            return network, quantization.cache(network, checkpoint, quantize, dtype, device)
        return network, ()
    network = _from_pretrained(params, checkpoint, dtype, quantize, device_map)
    if quantize != "none":
        if "bitsandbytes" in sys.modules:
            quantization.prepare_layers(network, device)
        if not getattr(network, "is_quantized", False):
            return network, (
                f"transformers holds the {quantize} weights of {checkpoint.name} as {dtype} here",
            )
    return network, ()


def _from_pretrained(
    params: LoadParams, checkpoint: Checkpoint, dtype: str, quantize: str, device_map: Any
) -> Any:
    from transformers import AutoModelForCausalLM

    arguments: dict[str, Any] = {
        "dtype": DTYPES[dtype],
        "local_files_only": True,
        "use_safetensors": None if params.allow_pickle else True,
        "trust_remote_code": params.trust_remote_code,
        "return_dict": True,  # whatever config.json says
        "ignore_mismatched_sizes": True,  # the report names them
    }
    if quantize in quantization.SCHEMES:
        arguments["quantization_config"] = quantization.scheme_settings(quantize, dtype)
    if device_map is not None:
        arguments["device_map"] = device_map
    if params.max_memory is not None:
        arguments["max_memory"] = memory_limits(params.max_memory)
    network, report = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, output_loading_info=True, **arguments
    )
    for name, stored, expected in sorted(report["mismatched_keys"]):
        raise LoadError(
            f"the weights of {checkpoint.name} do not have the shapes that its config.json says: "
            f"{name} is {list(stored)}, not {list(expected)}",
            "copy the original model's config.json into the folder",
        )
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise LoadError(
            f"{checkpoint.name} lacks {len(missing)} of its weights ({missing[0]}, …)",
            "is the download complete, and does config.json belong to it?",
        )
    return network.eval()


def device_map_of(
    params: LoadParams, checkpoint: Checkpoint, device: str, dtype: str, quantize: str
) -> Any:
    """One device, or accelerate's plan over all of them when the weights do not fit on one; None for
    a plain model on the CPU."""
    if params.max_memory is not None:
        return "auto"
    quantized = quantize in quantization.SCHEMES
    if params.device == "auto" and device.startswith("cuda"):
        needed = checkpoint.parameters * DTYPES[dtype].itemsize
        if quantized:  # they must lie whole on GPUs
            needed = Headers.of(checkpoint).weight_bytes(quantize, device)
        free, _ = torch.cuda.mem_get_info(device)
        if needed * 1.1 > free and (torch.cuda.device_count() > 1 or not quantized):
            return "auto"
    if device == "cpu" and not quantized:
        return None
    return {"": device}


def _check_architecture(checkpoint: Checkpoint, params: LoadParams) -> None:
    """Refuse what is not a decoder with a language-model head, before reading any weights."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if params.trust_remote_code and checkpoint.config.get("auto_map"):
        return
    kind = str(checkpoint.config.get("model_type"))
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # each library has its own for a configuration it cannot take
        import transformers

        if checkpoint.config.get("auto_map"):
            raise LoadError(
                f"{checkpoint.name} brings its own code",
                "add --trust-remote-code if you trust its source",
            ) from error
        if kind not in transformers.CONFIG_MAPPING:
            raise LoadError(
                f"{checkpoint.name} is of architecture {kind!r}, "
                f"which transformers {transformers.__version__} does not know",
                "a newer transformers may know it: pip install -U transformers",
            ) from error
        raise LoadError(
            f"config.json of {checkpoint.name} cannot be used: {reason(error, checkpoint.folder)}",
            "copy the original model's config.json into the folder",
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise LoadError(
            f"{checkpoint.name} is an encoder-decoder model ({kind})",
            "decodecli runs decoder-only (causal) models",
        )
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    named = list(map(str, config.architectures or []))
    wrong = named and not causal.intersection(named)
    if wrong or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise LoadError(
            f"{checkpoint.name} is no causal language model ({', '.join(named) or kind})",
            "give a decoder-only model, one whose class ends in ForCausalLM",
        )


@contextlib.contextmanager
def quiet_transformers(verbose: bool) -> Iterator[None]:
    """Keep third-party logging, progress bars and prints off both streams."""
    if verbose:
        yield
        return
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    from transformers.utils import logging as noise

    level, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        with (
            quiet_libraries(allowed=False),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            yield
    finally:
        noise.set_verbosity(level)
        if bars:
            noise.enable_progress_bar()


def device_names(model: Any, device: str) -> str:
    """Where a model lies that was to lie on `device`; accelerate may have spread it."""
    devices = getattr(model, "hf_device_map", None)
    if devices and (len(set(devices.values())) > 1 or "disk" in devices.values()):
        names = [f"cuda:{d}" if isinstance(d, int) else str(d) for d in devices.values()]
        return "+".join(sorted(set(names)))
    return device
