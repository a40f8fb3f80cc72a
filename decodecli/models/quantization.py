"""Weights in 4 and 8 bits through bitsandbytes: asked for, checked, kept in the cache.

Quantizing a model on load takes up to a minute, each time. `cache` writes what came of it, tensor by
tensor, packed for the processor where bitsandbytes has packed it; `load_cached` builds the modules
without weights, maps the file and hangs its tensors in. Nothing is computed or copied on a CPU, and the
pages are shared between processes.

bitsandbytes' own serialization (`save_pretrained`) loads as fast, but unpacked: on CPUs with
AVX512-BF16 the first token then takes 4 to 7 s for a model of 0.5 B parameters, where it takes less than
1 s from here; and the scales come back rounded otherwise, so that the logits differ from the first run's.

bitsandbytes takes more than a second to import; nothing here does so before it is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from decodecli.errors import LoadError
from decodecli.memory_size import memory_size
from decodecli.models.cache_files import (
    StoredTensor,
    cache_folder,
    checksum,
    entry_path,
    read_metadata,
    write_entry,
)
from decodecli.models.checkpoint import PICKLES, Checkpoint
from decodecli.models.load_errors import out_of_memory
from decodecli.models.memory_estimate import packs
from decodecli.models.model_files import first_line

SCHEMES = ("nf4", "fp4", "int8")
FORMAT = 4  # of what is in a file; another number is another entry
_PACKAGES = ("torch", "transformers", "bitsandbytes")
_DTYPES = {  # as safetensors spells them
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_UNUSABLE = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, AssertionError)


class Unusable(Exception):
    """An entry that is not what it should be; it is made again."""


def scheme_settings(scheme: str, dtype: str) -> Any:
    """transformers' settings for one of `SCHEMES`; `dtype` is that of the computation."""
    from transformers import BitsAndBytesConfig

    if scheme == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=scheme,
        bnb_4bit_use_double_quant=True,
        # The library's default, float32, is silently slow.
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


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


def _entry(checkpoint: Checkpoint, scheme: str, dtype: str, device: str) -> Path | None:
    """Where the quantized weights of a checkpoint lie or would lie; None when the cache is off or
    the checkpoint brings code of its own, whose modules could hold anything."""
    folder = cache_folder()
    if folder is None or checkpoint.config.get("auto_map"):
        return None
    files = []
    for pattern in ("*.safetensors", *PICKLES):
        for path in sorted(checkpoint.folder.glob(pattern)):
            status = path.stat()
            files.append([path.name, status.st_size, status.st_mtime_ns])
    config = (checkpoint.folder / "config.json").read_bytes()
    kind = device.partition(":")[0]
    key = {  # everything on which the bytes of an entry depend
        "format": FORMAT,
        "folder": str(checkpoint.folder.resolve()),
        "revision": checkpoint.revision,
        "config": hashlib.sha256(config).hexdigest(),
        "files": files,
        "scheme": scheme,
        "dtype": dtype,
        "device": kind,
        "versions": _versions(),
        "packed": scheme != "int8" and packs(kind),
        "processor": torch.backends.cpu.get_cpu_capability() if kind == "cpu" else None,
    }
    return entry_path(folder, checkpoint.name, scheme, key)


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in _PACKAGES}


def cached_file(checkpoint: Checkpoint, scheme: str, dtype: str, device: str) -> Path | None:
    """The file of an earlier run's quantized weights, None where there is none."""
    path = _entry(checkpoint, scheme, dtype, device) if scheme in SCHEMES else None
    return path if path is not None and path.is_file() else None


def load_cached(checkpoint: Checkpoint, scheme: str, dtype: str, device: str) -> Any | None:
    """The model as an earlier run quantized it; None where no usable file is kept.

    A file that is not what it should be goes; one that only could not be read now stays.

    Raises:
        RuntimeError, OSError: memory ran out.
    """
    from transformers import GenerationConfig

    path = cached_file(checkpoint, scheme, dtype, device)
    if path is None:
        return None
    try:
        network = restore(path, _without_weights(checkpoint, scheme, dtype), device)
    except Unusable:
        with contextlib.suppress(OSError):  # made again
            path.unlink()
        return None
    except (OSError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        return None
    # What `from_pretrained` notes on a model besides its weights.
    network.config.name_or_path = str(checkpoint.folder)
    if (checkpoint.folder / "generation_config.json").is_file() and network.can_generate():
        network.generation_config = GenerationConfig.from_pretrained(
            checkpoint.folder, local_files_only=True
        )
    network.hf_quantizer.postprocess_model(network)
    return network.eval()


def _without_weights(checkpoint: Checkpoint, scheme: str, dtype: str) -> Any:
    """The model on the meta device, with layers of bitsandbytes' where transformers puts them."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, return_dict=True)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    quantizer = AutoHfQuantizer.from_config(scheme_settings(scheme, dtype), pre_quantized=False)
    quantizer.preprocess_model(network, device_map=None)
    network.hf_quantizer = quantizer
    return network


def cache(
    network: nn.Module, checkpoint: Checkpoint, scheme: str, dtype: str, device: str
) -> tuple[str, ...]:
    """Write a quantized model to the cache; returns the notices about it."""
    path = _entry(checkpoint, scheme, dtype, device)
    if path is None:
        return ()
    try:
        store(network, path, checkpoint, scheme, dtype)
    except (OSError, Unusable) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return (f"the quantized weights could not be kept for the next start: {reason}",)
    return (
        f"the quantized weights are kept for the next start ({memory_size(path.stat().st_size)}); "
        "decodecli models cache shows and clears them",
    )


def store(network: nn.Module, path: Path, checkpoint: Checkpoint, scheme: str, dtype: str) -> None:
    """Write a quantized model to the cache.

    Raises:
        OSError: the file cannot be written.
        Unusable: the model has something that a file cannot hold.
    """
    tensors, layout = _disassemble(network)
    about = {
        "name": checkpoint.name,
        "folder": str(checkpoint.folder.resolve()),
        "scheme": scheme,
        "dtype": dtype,
        "device": "+".join(sorted({tensor.device.type for tensor in tensors.values()})),
        "versions": _versions(),
    }
    stored = {name: _stored(tensor) for name, tensor in tensors.items()}
    write_entry(path, {"format": FORMAT, "about": about, "layout": layout}, stored)


def _stored(tensor: Tensor) -> StoredTensor:
    if tensor.dtype not in _DTYPES or tensor.is_meta:
        raise Unusable(f"a tensor of type {tensor.dtype}")
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return StoredTensor(_DTYPES[tensor.dtype], tuple(tensor.shape), flat.numpy().data)


def restore(path: Path, empty: Any, device: str) -> Any:
    """Fill a model without weights from the cache.

    Args:
        empty: the model on the meta device, with empty layers of bitsandbytes.
        device: where it is to run; on a CPU the tensors are the file's own pages.

    Raises:
        Unusable: the file is cut short, of another version, or does not fit the model.
        OSError, RuntimeError: something else went wrong, and the file may be good.
    """
    layout, tensors = _read(path)
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    placed: dict[str, Tensor] = {}
    try:
        for prefix, settings in layout["layers"].items():
            start = f"{prefix}:"
            weights = {n.removeprefix(start): tensors[n] for n in tensors if n.startswith(start)}
            _fill(empty.get_submodule(prefix), settings, weights)
        for prefix, module in empty.named_modules():
            quantized = prefix in layout["layers"]
            for name, holder, _ in _module_tensors(module, prefix, without_weight=quantized):
                source = layout["aliases"].get(name, name)
                if source not in placed:
                    tensor = tensors[source]
                    is_parameter = holder is module._parameters
                    placed[source] = nn.Parameter(tensor, False) if is_parameter else tensor
                holder[name.rpartition(".")[2]] = placed[source]
    except _UNUSABLE as error:
        raise Unusable(str(error)) from error
    if unplaced := {name for name in tensors if ":" not in name} - placed.keys():
        raise Unusable(f"the model has no {min(unplaced)}")
    return empty


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The layout and the tensors of a sound entry, its pages mapped privately."""
    try:
        metadata = read_metadata(path)
        if metadata["format"] != FORMAT:
            raise Unusable("of another version")
        tensors = load_file(path)
        stored = {name: _stored(tensor) for name, tensor in tensors.items()}
        if checksum(metadata, stored) != metadata["checksum"]:
            raise Unusable("its bytes are not those that were written")
        return metadata["layout"], tensors
    except LoadError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise Unusable(str(error)) from error
    except _UNUSABLE as error:
        raise Unusable(str(error)) from error


def _disassemble(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a model by name, and how its quantized layers are filled again.

    Tensors that two modules share are kept once; `aliases` says where else they belong.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    layout: dict[str, Any] = {"layers": {}, "aliases": {}}
    for prefix, module in network.named_modules():
        quantized = _describe(module)
        if quantized is not None:
            layout["layers"][prefix], weights = quantized
            tensors |= {f"{prefix}:{name}": tensor for name, tensor in weights.items()}
        for name, _, tensor in _module_tensors(
            module, prefix, without_weight=quantized is not None
        ):
            first = names.setdefault(id(tensor), name)
            if first == name:
                tensors[name] = tensor
            else:
                layout["aliases"][name] = first
    return tensors, layout


def _module_tensors(
    module: nn.Module, prefix: str, without_weight: bool
) -> Iterator[tuple[str, dict[str, Any], Tensor]]:
    """A module's parameters, buffers and plain tensors, without those of its parts: the full name of
    each, and the dictionary that holds it under the name's last part."""
    holders: tuple[Any, ...] = (module._parameters, module._buffers, vars(module))
    for holder in holders:
        for leaf, tensor in list(holder.items()):
            if isinstance(tensor, Tensor) and not (without_weight and leaf == "weight"):
                yield f"{prefix}.{leaf}".removeprefix("."), holder, tensor


def _describe(layer: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """A quantized layer's settings and the tensors of its weight; None for another module."""
    import bitsandbytes.nn as bnb

    if isinstance(layer, bnb.Linear8bitLt):
        scales = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB
        return {}, {"weight": layer.weight.data, "SCB": scales}
    if not isinstance(layer, bnb.Linear4bit):
        return None
    state = layer.weight.quant_state
    fields = state.as_dict()
    tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    settings: dict[str, Any] = {
        "state": {name: value for name, value in fields.items() if name not in tensors},
        "packed_kernel": bool(layer.support_avx512bf16_for_cpu),
    }
    if getattr(state, "packing_format_for_cpu", False):
        settings["before_packing"] = {
            "dtype": str(state.original_dtype).removeprefix("torch."),
            "nested": bool(state.original_nested),
            "shape": list(state.original_qshape),
        }
    return settings, {"weight": layer.weight.data, **tensors}


def _fill(layer: Any, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Give an empty layer the weight that `_describe` described."""
    import bitsandbytes.nn as bnb
    from bitsandbytes.functional import QuantState

    weight = tensors.pop("weight")
    if isinstance(layer, bnb.Linear8bitLt):
        layer.weight = bnb.Int8Params(
            weight, requires_grad=False, has_fp16_weights=False, CB=weight, SCB=tensors["SCB"]
        )
        return
    state = QuantState.from_dict({**settings["state"], **tensors}, weight.device)
    if before := settings.get("before_packing"):
        state.packing_format_for_cpu = True
        state.original_dtype = getattr(torch, before["dtype"])
        state.original_nested = before["nested"]
        state.original_qshape = torch.Size(before["shape"])
    layer.weight = bnb.Params4bit(
        weight, requires_grad=False, quant_state=state, blocksize=state.blocksize,
        compress_statistics=layer.weight.compress_statistics, quant_type=state.quant_type,
        module=layer, bnb_quantized=True,
    )  # fmt: skip
    layer.quant_state = state
    layer.support_avx512bf16_for_cpu = settings["packed_kernel"]
