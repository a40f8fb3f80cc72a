"""Does a model fit? Told from config.json and the headers of its weight files, before it is loaded.

Weights are counted tensor by tensor, as transformers and bitsandbytes hold them: embeddings, the
output head, routers and the experts of a mixture stay in the type of computation, every other linear
layer is quantized. The cache of keys and values is counted layer by layer, with grouped heads, and with
sliding windows where transformers keeps it. What PyTorch itself and the work of a step take is an
allowance, not a count.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from pathlib import Path
from typing import Any

from decodecli.errors import LoadError, UsageError
from decodecli.models.checkpoint import (
    Checkpoint,
    Progress,
    fetch_headers,
    find_checkpoint,
    is_hub_name,
)
from decodecli.models.embedding_weights import INPUT, OUTPUT, matches, setting
from decodecli.models.machine import DeviceMemory
from decodecli.models.model_files import (
    NUMBER_BYTES,
    blamed_on,
    reason,
    safetensors_header,
    weight_files,
)
from decodecli.settings import BUILTIN, LoadParams

SCHEMES = ("float32", "bfloat16", "int8", "nf4")
USUAL_CONTEXT = 4096
GIB = 2**30
WRITTEN_OUT = ("llama", "mistral", "qwen2", "qwen3", "gpt2")  # as in `supported`
PYTORCH = GIB // 2  # bytes: the libraries and a CUDA context
_SAME_SIZE = {"fp4": "nf4", "float16": "bfloat16"}
_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
_BLOCK, _OUTER_BLOCK = 64, 256  # weights to a scale, scales to a scale of theirs
_TABLES = 16 * 4 + 256 * 4 + 4  # bytes a layer: both code tables and the offset
_POSITIONS = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight")
_LEAST = {"vocab_size": 1, "hidden_size": 1, "num_hidden_layers": 0, "num_attention_heads": 0}
_BUFFERS = re.compile(r"(inv_freq|masked_bias|\.attn\.bias|attention\.bias)$")


@dataclass(frozen=True)
class Headers:
    """What a checkpoint's headers say, and what a model loaded from it takes.

    tensors: name → its dtype as safetensors spells it, and its shape. folder: None for one on the hub.
    """

    name: str
    config: dict[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    folder: Path | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Headers:
        """The headers of a local checkpoint.

        Raises:
            LoadError: there are no safetensors files, or one is cut short.
        """
        tensors = {
            name: (str(tensor["dtype"]), tuple(tensor["shape"]))
            for file in weight_files(checkpoint.folder)
            for name, tensor in safetensors_header(file).items()
        }
        return cls(checkpoint.name, checkpoint.config, tensors, checkpoint.folder)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The weights of a loaded model, by name."""
        tied = setting(self.config, "tie_word_embeddings") is True
        tied = tied and any(matches(name, INPUT) for name in self.tensors)
        return {
            name: shape
            for name, (_, shape) in self.tensors.items()
            # Tied, they are one matrix, though the file may have it twice.
            if not _BUFFERS.search(name) and not (tied and matches(name, OUTPUT))
        }

    @property
    def parameters(self) -> int:
        return sum(map(prod, self.shapes.values()))

    @cached_property
    def has_experts(self) -> bool:
        return any(".experts." in name for name in self.shapes)

    @cached_property
    def linear(self) -> list[tuple[int, ...]]:
        """The shapes of the layers that bitsandbytes quantizes."""
        kept = (*INPUT, *OUTPUT, *_POSITIONS)
        return [
            shape
            for name, shape in self.shapes.items()
            if len(shape) == 2
            and name.endswith(".weight")
            and ".experts." not in name
            and not (self.has_experts and name.endswith(".gate.weight"))  # a router
            and not matches(name, kept)
        ]

    def weight_bytes(self, scheme: str, device: str) -> int:
        """Bytes of the weights in a number type or scheme; as the files have them where they are
        quantized already."""
        if self.config.get("quantization_config"):
            return sum(
                prod(shape) * NUMBER_BYTES.get(dtype, 1) for dtype, shape in self.tensors.values()
            )
        if scheme in _SIZES:
            return self.parameters * _SIZES[scheme]
        packed = packs(device)
        transposed = self.config.get("model_type") in ("gpt2", "openai-gpt")
        total = self.parameters * _SIZES["bfloat16"]
        for shape in self.linear:
            rows, columns = reversed(shape) if transposed else shape
            total += _layer_bytes(scheme, rows, columns, packed) - prod(shape) * _SIZES["bfloat16"]
        return total


@dataclass(frozen=True)
class SchemeFit:
    """What one scheme needs, in bytes; `headroom` is what would be left, negative if it is too much."""

    scheme: str
    weights: int
    kv_cache: int
    working: int
    headroom: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.working

    @property
    def fits(self) -> bool:
        return self.headroom >= 0


@dataclass(frozen=True)
class Fit:
    """The answer for every scheme. context: positions asked for; longest: those that the model has."""

    name: str
    parameters: int
    context: int
    longest: int | None
    memory: DeviceMemory
    schemes: tuple[SchemeFit, ...]
    assumed: tuple[str, ...]


def find_headers(params: LoadParams, progress: Progress = lambda _: None) -> Headers:
    """The headers of a model by name: from its folder or the local cache, else asked of the hub.

    Raises:
        LoadError: there is no such model, or the hub cannot be asked.
    """
    try:
        return Headers.of(find_checkpoint(params, progress, download=False))
    except LoadError:
        local = params.model == BUILTIN or os.path.exists(os.path.expanduser(params.model))
        if local or not is_hub_name(params.model):
            raise
    return Headers(params.model, *fetch_headers(params, progress))


def estimate(headers: Headers, memory: DeviceMemory, context: int | None = None) -> Fit:
    """What a model needs in each scheme at a context of so many positions, of one sequence; without
    the schemes of bitsandbytes where that does not work.

    Args:
        context: None for 4096, or the model's own where that is less.

    Raises:
        UsageError: the model has fewer positions.
        LoadError: its configuration cannot be understood.
    """
    with blamed_on(f"config.json of {headers.name}", folder=headers.folder):
        config = _text_config(headers)
        for name, least in _LEAST.items():
            value = getattr(config, name, None)
            if isinstance(value, int) and value < least:
                raise LoadError(
                    f"config.json of {headers.name}: {name} is {value}",
                    "copy the original model's files into the folder",
                )
        longest = context_length(config)
        if context is not None and longest is not None and context > longest:
            raise UsageError(
                f"--context {context}: {headers.name} has {longest} positions", "choose fewer"
            )
        positions = context or min(USUAL_CONTEXT, longest or USUAL_CONTEXT)
        assumed = ["one sequence", "libraries and the work of a step by an allowance"]
        if headers.has_experts:
            assumed.insert(0, "the experts of a mixture stay in the type of computation")
        if getattr(config, "kv_lora_rank", None):
            assumed.append("keys and values cached in their compressed form")
        if not {"full_attention", "sliding_attention", "chunked_attention"}.issuperset(
            _layer_types(config)
        ):
            assumed.append("the states of layers without attention are not counted")
        quantization = headers.config.get("quantization_config")
        if isinstance(quantization, dict):
            schemes = [str(quantization.get("quant_method", "as stored"))]
        else:
            schemes = list(SCHEMES)
            if reason := why_not_quantized(memory.device):
                schemes = [scheme for scheme in SCHEMES if scheme in _SIZES]
                assumed.append(reason)
        fits = []
        for scheme in schemes:
            weight = headers.weight_bytes(scheme, memory.device)
            size = _SIZES.get(scheme, 2)
            cache = kv_cache_bytes(config, positions, size)
            working = PYTORCH + _step_bytes(config, headers, positions, size)
            left = memory.free - weight - cache - working
            fits.append(SchemeFit(scheme, weight, cache, working, left))
        return Fit(
            headers.name, headers.parameters, positions, longest, memory, tuple(fits),
            tuple(assumed),
        )  # fmt: skip


def why_not_quantized(device: str) -> str:
    """Why a model cannot be quantized on this device, or ""."""
    if device == "mps":
        return "no int8 and nf4: bitsandbytes does not work on mps"
    return "" if has_bitsandbytes() else "no int8 and nf4: bitsandbytes is not installed"


def has_bitsandbytes() -> bool:
    """Whether bitsandbytes is installed; it is not imported."""
    return importlib.util.find_spec("bitsandbytes") is not None


def packs(device: str) -> bool:
    """Whether bitsandbytes repacks 4-bit weights on this device: it does for CPUs with AVX512-BF16, and
    keeps a bfloat16 scale a block there instead of the doubly quantized one."""
    if device != "cpu":
        return False
    try:
        return " avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _layer_bytes(scheme: str, rows: int, columns: int, packed: bool) -> int:
    """A linear layer's weight: 8 bits and a float32 a row, or 4 bits with scales for blocks of 64
    (quantized again to 8 bits with a float32 for 256 of them: 4.127 bits a weight in all)."""
    count = rows * columns
    if scheme == "int8":
        return count + 4 * rows
    scales = ceil(count / _BLOCK)
    if packed and columns % 64 == 0 and rows % 32 == 0:
        return count // 2 + 2 * scales + 16 * 4
    return ceil(count / 2) + scales + 4 * ceil(scales / _OUTER_BLOCK) + _TABLES


def kv_cache_bytes(config: Any, positions: int, size: int) -> int:
    """Keys and values of one sequence: for each layer, heads × width × positions, twice.

    Where the engine's own steps go on from the prompt (`WRITTEN_OUT`), every layer keeps every
    position, those with a sliding window too. Elsewhere transformers' cache is taken, in which such a
    layer keeps no more positions than its window. A layer without attention keeps a state of fixed
    size, which is not counted. Assumed: one cache of as many positions as the context; not counted are
    the prompt's cache of transformers, which lives beside the engine's own while the prompt is moved
    there or where several samples start from it, and the spare places of a cache that has just grown.
    """
    latent = getattr(config, "kv_lora_rank", None)
    if latent:  # one compressed row a position, whatever the number of heads
        width = latent + (getattr(config, "qk_rope_head_dim", 0) or 0)
    else:
        heads = getattr(config, "num_attention_heads", None)
        if not isinstance(heads, int) or heads < 1:
            return 0
        shared = getattr(config, "num_key_value_heads", None) or heads
        if getattr(config, "multi_query", False) and not hasattr(config, "num_key_value_heads"):
            shared = 1
        width = 2 * shared * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    windows = {
        "sliding_attention": getattr(config, "sliding_window", None),
        "chunked_attention": getattr(config, "attention_chunk_size", None),
    }
    kept = 0
    for kind in _layer_types(config):
        if getattr(config, "model_type", None) in WRITTEN_OUT:
            kept += positions
        elif window := windows.get(kind):
            kept += min(positions, window)
        elif "attention" in kind and "linear" not in kind:
            kept += positions
    return kept * width * size


def _layer_types(config: Any) -> list[str]:
    """What each layer attends to, as transformers' own cache reads it."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        if getattr(config, "sliding_window", None) is not None:
            kind = "sliding_attention"
        elif getattr(config, "attention_chunk_size", None) is not None:
            kind = "chunked_attention"
        else:
            kind = "full_attention"
        kinds = [kind] * int(getattr(config, "num_hidden_layers", 0) or 0)
    shared = getattr(config, "num_kv_shared_layers", None) or 0
    return list(kinds)[: len(kinds) - shared]


def _step_bytes(config: Any, headers: Headers, positions: int, size: int) -> int:
    """The work of a step: a prompt as long as the context through the widest layer, and some vectors
    over the vocabulary."""
    hidden = getattr(config, "hidden_size", 0) or 0
    wide = getattr(config, "intermediate_size", None) or 4 * hidden
    wide = max(wide) if isinstance(wide, list | tuple) else wide
    largest = max(map(prod, headers.linear), default=0)
    vocabulary = getattr(config, "vocab_size", 0) or 0
    return positions * (3 * wide + 4 * hidden) * size + largest * size + 32 * vocabulary


def _text_config(headers: Headers) -> Any:
    from transformers import AutoConfig

    values = dict(headers.config)
    values.pop("quantization_config", None)
    try:
        return AutoConfig.for_model(values.pop("model_type", None), **values).get_text_config()
    except Exception as error:  # each kind of configuration has its own
        raise LoadError(
            f"config.json of {headers.name} cannot be understood: {reason(error, headers.folder)}",
            "a newer transformers may know it: pip install -U transformers",
        ) from error


def context_length(config: Any) -> int | None:
    """How many positions a text model's configuration has; None where it sets no limit."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def what_fits(
    headers: Headers, memory: DeviceMemory, context: int | None = None, *, failed: str | None = None
) -> str:
    """A line of advice for a model that did not fit: the most exact scheme that would.

    Args:
        failed: the scheme that did not fit; only smaller ones are advised.

    >>> what_fits(headers, device_memory("cuda:0"))
    '--quantize nf4 needs 5.0 of the 15.7 GiB free on cuda:0'
    """
    schemes = estimate(headers, memory, context).schemes
    limit = _SAME_SIZE.get(failed or "", failed)
    names = [scheme.scheme for scheme in schemes]
    smaller = schemes[names.index(limit) + 1 :] if limit in names else schemes
    free = f"{memory.free / GIB:.1f} GiB free on {memory.device}"
    for scheme in smaller:
        if scheme.fits:
            flag = "--dtype" if scheme.scheme in _SIZES else "--quantize"
            choice = f"{flag} {scheme.scheme}" if scheme.scheme in SCHEMES else "it"
            return f"{choice} needs {scheme.total / GIB:.1f} of the {free}"
    least = min(schemes, key=lambda scheme: scheme.total)
    return (
        f"even {least.scheme} needs {least.total / GIB:.1f} GiB, with {free}: "
        "take a smaller model, or free some memory"
    )
