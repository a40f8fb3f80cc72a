"""A quantized model to one file and back, without quantizing again.

Quantizing a model on load takes up to a minute, each time. `store` writes what came of it, tensor by
tensor, packed for the processor where bitsandbytes has packed it; `restore` builds the modules without
weights, maps the file and hangs its tensors in. Nothing is computed or copied on a CPU, and the pages
are shared between processes.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decodecli.errors import LoadError
from decodecli.models.cache_files import (
    StoredTensor,
    cache_folder,
    checksum,
    entry_path,
    identity,
    read_metadata,
    write_entry,
)
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.memory_estimate import packs
from decodecli.models.model_files import safetensors_header

FORMAT = 2  # of what is in a file; another number is another entry
_PACKAGES = ("torch", "transformers", "bitsandbytes")
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


class Unusable(Exception):
    """An entry that is not what it should be; it is made again."""


def entry_for(checkpoint: Checkpoint, scheme: str, dtype: str, device: str) -> Path | None:
    """Where the quantized weights of a checkpoint lie or would lie; None when the cache is off or
    the checkpoint brings code of its own, whose modules could hold anything."""
    folder = cache_folder()
    if folder is None or checkpoint.config.get("auto_map"):
        return None
    return entry_path(folder, checkpoint.name, scheme, _key(checkpoint, scheme, dtype, device))


def _key(checkpoint: Checkpoint, scheme: str, dtype: str, device: str) -> dict[str, Any]:
    """Everything on which the bytes of an entry depend."""
    kind = device.partition(":")[0]
    return {
        "format": FORMAT,
        "checkpoint": identity(checkpoint),
        "scheme": scheme,
        "dtype": dtype,
        "device": kind,
        "versions": _versions(),
        "packed": scheme != "int8" and packs(kind),
        "processor": torch.backends.cpu.get_cpu_capability() if kind == "cpu" else None,
    }


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in _PACKAGES}


def store(network: nn.Module, path: Path, checkpoint: Checkpoint, scheme: str, dtype: str) -> None:
    """Write a quantized model to the cache.

    Raises:
        OSError: the file cannot be written.
        Unusable: the model has something that a file cannot hold.
    """
    tensors, plan = _take_apart(network)
    devices = {tensor.device.type for tensor in tensors.values()}
    about = {
        "name": checkpoint.name,
        "folder": str(checkpoint.folder.resolve()),
        "scheme": scheme,
        "dtype": dtype,
        "device": "+".join(sorted(devices)),
        "versions": _versions(),
    }
    stored = {name: _stored(tensor) for name, tensor in tensors.items()}
    write_entry(path, {"format": FORMAT, "about": about, "plan": plan}, stored)


def _stored(tensor: Tensor) -> StoredTensor:
    if tensor.dtype not in _NAMES or tensor.is_meta:
        raise Unusable(f"a tensor of type {tensor.dtype}")
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return StoredTensor(_NAMES[tensor.dtype], tuple(tensor.shape), flat.numpy().data)


def restore(path: Path, empty: nn.Module, device: str) -> nn.Module:
    """Fill a model without weights from the cache.

    Args:
        empty: the model on the meta device, not quantized.
        device: where it is to run; on a CPU the tensors are the file's own pages.

    Raises:
        Unusable: the file is cut short, of another version, or does not fit the model.
        OSError, RuntimeError: something else went wrong, and the file may be good.
    """
    metadata, headers = _described(path)
    stored = _mapped(path, headers)
    found = {name: _stored(tensor) for name, tensor in stored.items()}
    if checksum(metadata, found) != metadata["checksum"]:
        raise Unusable("its bytes are not those that were written")
    tensors = {name: tensor.to(device) for name, tensor in stored.items()}  # on a CPU the same ones
    try:
        _put_together(empty, tensors, metadata["plan"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(str(error)) from error
    return empty


def _described(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an entry says of itself and of its tensors, whose places and sizes are as they must be.

    Raises:
        Unusable: it is no whole entry of this version.
        OSError: it cannot be read.
    """
    try:
        metadata = read_metadata(path)
        headers = safetensors_header(path)
        if metadata["format"] != FORMAT:
            raise Unusable("of another version")
        if any(header["dtype"] not in _TYPES for header in headers.values()):
            raise Unusable("a tensor of an unknown type")
    except LoadError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise Unusable(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(str(error)) from error
    return metadata, headers


def _mapped(path: Path, headers: dict[str, Any]) -> dict[str, Tensor]:
    """Every tensor of the file, its pages mapped privately."""
    size = os.path.getsize(path)
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    storage: Any = torch.UntypedStorage.from_file(str(path), False, size)
    everything = torch.empty(0, dtype=torch.uint8).set_(storage)
    found = {}
    for name, header in headers.items():
        low, high = header["data_offsets"]
        raw = everything[start + low : start + high]
        try:
            found[name] = raw.view(_TYPES[header["dtype"]]).reshape(header["shape"])
        except RuntimeError as error:  # not at a place where such numbers may lie
            raise Unusable(str(error)) from error
    return found


def _take_apart(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a model by name, and what else is needed to put them together again.

    Weights that two places share are kept once; `shared` says where else they belong.
    """
    tensors: dict[str, Tensor] = {}
    plan: dict[str, Any] = {"layers": {}, "shared": {}, "attributes": []}
    seen: dict[int, str] = {}
    for prefix, module in network.named_modules():
        quantized = _layer(module, prefix + ".weight", tensors)
        if quantized is not None:
            plan["layers"][prefix] = quantized
        for leaf, kind, tensor in _own_tensors(module):
            if quantized is not None and leaf == "weight":
                continue
            name = f"{prefix}.{leaf}" if prefix else leaf
            if kind == "attribute":
                plan["attributes"].append(name)
            if id(tensor) in seen:
                plan["shared"][name] = seen[id(tensor)]
            else:
                seen[id(tensor)] = name
                tensors[name] = tensor
    return tensors, plan


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """A module's parameters, buffers and plain tensors, without those of its parts."""
    for kind, held in (("parameter", module._parameters), ("buffer", module._buffers)):
        for name, tensor in held.items():
            if tensor is not None:
                yield name, kind, tensor
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield name, "attribute", value


def _layer(module: nn.Module, weight: str, tensors: dict[str, Tensor]) -> dict[str, Any] | None:
    """How to build a quantized layer again, its tensors put among the others; None if it is none."""
    import bitsandbytes.nn as bnb

    shape: dict[str, Any] = {
        "in": getattr(module, "in_features", 0),
        "out": getattr(module, "out_features", 0),
        "bias": getattr(module, "bias", None) is not None,
        "transposed": getattr(module, "source_cls", nn.Linear).__name__ == "Conv1D",
    }
    if isinstance(module, bnb.Linear8bitLt):
        scale = module.state.SCB if module.state.SCB is not None else module.weight.SCB
        tensors[weight], tensors[weight + ":SCB"] = module.weight.data, scale
        return {"kind": "8bit", **shape, "threshold": module.state.threshold}
    if isinstance(module, bnb.Linear4bit):
        state = module.weight.quant_state
        packed = bool(getattr(state, "packing_format_for_cpu", False))
        tensors[weight] = module.weight.data
        tensors[weight + ":absmax"], tensors[weight + ":code"] = state.absmax, state.code
        described = {
            "kind": "4bit", **shape,
            "compute": _NAMES[module.compute_dtype],
            "double": module.weight.compress_statistics,
            "kernel": bool(module.support_avx512bf16_for_cpu),
            "scheme": state.quant_type, "blocksize": state.blocksize,
            "dtype": _NAMES[state.dtype], "shape": list(state.shape), "packed": packed,
        }  # fmt: skip
        if packed:
            described["before"] = {
                "dtype": _NAMES[state.original_dtype], "nested": bool(state.original_nested),
                "shape": list(state.original_qshape),
            }  # fmt: skip
        if state.nested:
            tensors[weight + ":offset"] = state.offset
            tensors[weight + ":absmax2"] = state.state2.absmax
            tensors[weight + ":code2"] = state.state2.code
            described["outer"] = {
                "blocksize": state.state2.blocksize, "dtype": _NAMES[state.state2.dtype]
            }  # fmt: skip
        return described
    return None


def _put_together(network: nn.Module, tensors: dict[str, Tensor], plan: dict[str, Any]) -> None:
    for prefix, described in plan["layers"].items():
        build = _layer_of_4_bits if described["kind"] == "4bit" else _layer_of_8_bits
        network.set_submodule(prefix, build(described, prefix + ".weight", tensors))
    places = {name: name for name in tensors if ":" not in name} | plan["shared"]
    quantized = {prefix + ".weight" for prefix in plan["layers"]}
    attributes, placed = set(plan["attributes"]), {}
    for name, source in places.items():
        if name in quantized:
            continue
        module, leaf = _owner(network, name)
        if leaf in module._parameters:
            if source not in placed:
                placed[source] = nn.Parameter(tensors[source], requires_grad=False)
            module._parameters[leaf] = placed[source]
        elif leaf in module._buffers:
            module._buffers[leaf] = tensors[source]
        elif name in attributes:
            setattr(module, leaf, tensors[source])
        else:
            raise Unusable(f"the model has no {name}")
    for prefix, module in network.named_modules():
        for leaf, _, tensor in _own_tensors(module):
            if tensor.is_meta:
                raise Unusable(f"{prefix}.{leaf} is missing")


def _owner(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    prefix, _, leaf = name.rpartition(".")
    return network.get_submodule(prefix), leaf


def _layer_of_4_bits(described: dict[str, Any], weight: str, tensors: dict[str, Tensor]) -> Any:
    import bitsandbytes.nn as bnb
    from bitsandbytes.functional import QuantState

    layer = bnb.Linear4bit(
        described["in"], described["out"], described["bias"], _TYPES[described["compute"]],
        described["double"], described["scheme"], device="meta",
    )  # fmt: skip
    outer = described.get("outer")
    inner = outer and QuantState(
        absmax=tensors[weight + ":absmax2"], code=tensors[weight + ":code2"],
        blocksize=outer["blocksize"], dtype=_TYPES[outer["dtype"]],
    )  # fmt: skip
    state = QuantState(
        absmax=tensors[weight + ":absmax"], code=tensors[weight + ":code"],
        shape=torch.Size(described["shape"]), blocksize=described["blocksize"],
        quant_type=described["scheme"], dtype=_TYPES[described["dtype"]],
        offset=tensors[weight + ":offset"] if outer else None, state2=inner,
    )  # fmt: skip
    if described["packed"]:
        before = described["before"]
        state.packing_format_for_cpu = True
        state.original_dtype = _TYPES[before["dtype"]]
        state.original_nested = before["nested"]
        state.original_qshape = torch.Size(before["shape"])
    layer.weight = bnb.Params4bit(
        tensors[weight], requires_grad=False, quant_state=state, blocksize=described["blocksize"],
        compress_statistics=described["double"], quant_type=described["scheme"], module=layer,
        bnb_quantized=True,
    )  # fmt: skip
    layer.quant_state = state
    layer.support_avx512bf16_for_cpu = described["kernel"]
    return _finished(layer, described)


def _layer_of_8_bits(described: dict[str, Any], weight: str, tensors: dict[str, Tensor]) -> Any:
    import bitsandbytes.nn as bnb

    layer = bnb.Linear8bitLt(
        described["in"], described["out"], described["bias"], has_fp16_weights=False,
        threshold=described["threshold"], device="meta",
    )  # fmt: skip
    layer.weight = bnb.Int8Params(
        tensors[weight], requires_grad=False, has_fp16_weights=False, CB=tensors[weight],
        SCB=tensors[weight + ":SCB"],
    )  # fmt: skip
    return _finished(layer, described)


def _finished(layer: Any, described: dict[str, Any]) -> Any:
    """What transformers notes on a layer, for saving: which class it stands for."""
    from transformers.pytorch_utils import Conv1D

    layer.source_cls = Conv1D if described["transposed"] else nn.Linear
    return layer
