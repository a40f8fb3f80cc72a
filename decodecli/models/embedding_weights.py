"""The embedding matrices of a checkpoint, read straight from its safetensors files.

No torch and no model: a matrix is found by its name, checked by its shape, and read in pieces, so that
a checkpoint of any size takes a few megabytes. (`safetensors.safe_open` has no bfloat16 without torch,
whose import takes longer than the reading, and maps the whole file.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodecli.errors import LoadError
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.model_files import safetensors_header, weight_files

Floats32 = NDArray[np.float32]

_CHUNK = 1 << 22  # numbers read at once: 16 MiB as float32

# Ends of names, the most telling first. A name with a number in it belongs to a layer.
INPUT = (
    "embed_tokens.weight",  # llama, mistral, qwen, gemma, phi, opt, …
    "wte.weight",  # gpt2, gpt-j, mpt, dbrx
    "embed_in.weight",  # gpt-neox
    "word_embeddings.weight",  # bloom, falcon, chatglm
    "tok_embeddings.weight",  # internlm2, mistral's own
    "word_embedding.weight",
    "token_embedding.weight",
    "tokens_embed.weight",
    "embed_token.weight",
    "embeddings.weight",  # mamba, rwkv
    "embedding.weight",
    "embed.weight",
    "emb.weight",
    "shared.weight",
)
OUTPUT = (
    "lm_head.weight",
    "embed_out.weight",  # gpt-neox
    "output_layer.weight",  # chatglm
    "lm_head.linear.weight",  # phi-1
    "output.weight",  # internlm2, mistral's own
    "head.weight",  # rwkv
)
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "model_dim", "word_embed_proj_dim")
_INNER = ("text_config", "llm_config", "language_config")

# As safetensors spells a type → as torch does, and what numpy reads it as.
_TYPES = {
    "F64": ("float64", "<f8"),
    "F32": ("float32", "<f4"),
    "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"),
    "F8_E4M3": ("float8_e4m3fn", "u1"),
    "F8_E5M2": ("float8_e5m2", "u1"),
}


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix where it lies on disk.

    dtype: the number type it is stored in, as torch spells it.
    offset: bytes from the start of `file` to its first number.
    """

    name: str
    file: Path
    dtype: str
    rows: int
    columns: int
    offset: int

    def read(self, ids: Sequence[int]) -> Floats32:
        """Some rows, `(len(ids), columns)` float32; nothing else of the file is read.

        Raises:
            LoadError: the file cannot be read.
            IndexError: an id is out of range.
        """
        if not all(0 <= row < self.rows for row in ids):
            raise IndexError
        vectors = [self._read_rows(row, 1) for row in ids]
        return np.concatenate([np.empty((0, self.columns), np.float32), *vectors])

    def chunks(self) -> Iterator[tuple[int, Floats32]]:
        """All rows in order, some megabytes at a time: the first row's number, `(some, columns)`.

        Raises:
            LoadError: the file cannot be read.
        """
        step = max(_CHUNK // self.columns, 1)
        for start in range(0, self.rows, step):
            yield start, self._read_rows(start, min(step, self.rows - start))

    def _read_rows(self, start: int, count: int) -> Floats32:
        kind = np.dtype(dict(_TYPES.values())[self.dtype])
        try:
            # Reading leaves the pages to the system; mapped ones would count as our memory.
            raw = np.fromfile(
                self.file, kind, count * self.columns,
                offset=self.offset + start * self.columns * kind.itemsize,
            )  # fmt: skip
        except OSError as error:
            raise LoadError(
                f"{self.file} cannot be read: {error.strerror}",
                "check its permissions, and the disk",
            ) from error
        if raw.size < count * self.columns:
            raise LoadError(f"{self.file} is cut short", "download it again")
        return _as_float32(raw, self.dtype).reshape(count, self.columns)


def _as_float32(raw: NDArray[Any], dtype: str) -> Floats32:
    if dtype == "bfloat16":  # the upper half of a float32
        wide = raw.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if dtype == "float8_e5m2":  # the upper half of a float16
        return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype == "float8_e4m3fn":  # a float16 with another bias, whose last code is no number
        halves = (raw & 0x80).astype(np.uint16) << 8 | (raw & 0x7F).astype(np.uint16) << 7
        numbers = halves.view(np.float16).astype(np.float32) * 256
        numbers[(raw & 0x7F) == 0x7F] = np.nan
        return numbers
    return raw.astype(np.float32, copy=False)


@dataclass(frozen=True)
class EmbeddingMatrices:
    """What a checkpoint has: `output` is `input` when they are tied, None when there is none."""

    input: StoredMatrix
    output: StoredMatrix | None
    tied: bool


def find_embeddings(
    checkpoint: Checkpoint, vocabulary: int, *, output: bool = False
) -> EmbeddingMatrices:
    """The embedding matrices of a checkpoint.

    Args:
        vocabulary: how many entries the tokenizer has; a matrix has at least as many rows.
        output: whether the output matrix is what is wanted, so that its lack is an error.

    Raises:
        LoadError: there is no such matrix, several could be it, or it is stored quantized.
    """
    tensors = {
        name: (file, tensor)
        for file in weight_files(checkpoint.folder)
        for name, tensor in safetensors_header(file).items()
    }
    matrix = _find_matrix(checkpoint, tensors, vocabulary, INPUT, "input")
    tied = setting(checkpoint.config, "tie_word_embeddings")
    has_output = any(matches(name, OUTPUT) for name in tensors)
    if tied is True or (tied is None and not has_output):
        return EmbeddingMatrices(matrix, matrix, tied=True)
    output_matrix = None
    if output or has_output:
        try:
            output_matrix = _find_matrix(checkpoint, tensors, vocabulary, OUTPUT, "output")
        except LoadError:
            if output:
                raise
    return EmbeddingMatrices(matrix, output_matrix, tied=False)


def _find_matrix(
    checkpoint: Checkpoint,
    tensors: dict[str, tuple[Path, dict[str, Any]]],
    vocabulary: int,
    suffixes: Sequence[str],
    kind: str,
) -> StoredMatrix:
    """The one matrix that the first of `suffixes` with a fitting shape names."""
    shapes = {name: tensor["shape"] for name, (_, tensor) in tensors.items()}
    sizes = (part.get(key) for part in _parts(checkpoint.config) for key in _HIDDEN)
    hidden = sorted({size for size in sizes if isinstance(size, int) and size > 0})
    large = [n for n, s in shapes.items() if len(s) == 2 and s[0] >= vocabulary and s[1] > 0]
    fitting = [name for name in large if not hidden or shapes[name][1] in hidden]
    misfit = ""
    for suffix in suffixes:
        named = [name for name in fitting if matches(name, (suffix,))]
        depth = min((name.count(".") for name in named), default=0)
        named = [name for name in named if name.count(".") == depth]
        if len(named) > 1:
            raise LoadError(
                f"several tensors of {checkpoint.name} could be its {kind} embeddings: "
                + _some(named),
                "a checkpoint with one language model is needed",
            )
        if named:
            return _stored_matrix(checkpoint, named[0], *tensors[named[0]])
        misfit = misfit or next((name for name in shapes if matches(name, (suffix,))), "")
    if misfit:
        shape = " × ".join(f"{size:,}" for size in shapes[misfit])
        wide = f", hidden size {hidden[0]:,}" if hidden else ""
        raise LoadError(
            f"{misfit} of {checkpoint.name} is {shape}; expected were {vocabulary:,} rows or "
            f"more{wide}",
            "do tokenizer and config.json belong to these weights, and are they unquantized?",
        )
    known = f"matrices with enough rows: {_some(large)}" if large else "no matrix has enough rows"
    raise LoadError(
        f"{checkpoint.name} has no tensor with a known name for {kind} embeddings",
        f"{known}; known are {_some(suffixes)}",
    )


def _stored_matrix(
    checkpoint: Checkpoint, name: str, file: Path, tensor: dict[str, Any]
) -> StoredMatrix:
    if tensor["dtype"] not in _TYPES:
        raise LoadError(
            f"{name} of {checkpoint.name} is stored as {tensor['dtype']}, which is no number type",
            "give the model before its embeddings were quantized",
        )
    rows, columns = tensor["shape"]
    dtype, _ = _TYPES[tensor["dtype"]]
    return StoredMatrix(name, file, dtype, rows, columns, tensor["start"])


def matches(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a tensor's name ends in one of the suffixes and belongs to no layer."""
    in_layer = any(part.isdigit() for part in name.split("."))
    return not in_layer and f".{name}".endswith(tuple(f".{suffix}" for suffix in suffixes))


def setting(config: dict[str, Any], key: str) -> Any:
    """A value of config.json, or of the part of it that describes the language model."""
    return next((part[key] for part in _parts(config) if part.get(key) is not None), None)


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [config, *(part for name in _INNER if isinstance(part := config.get(name), dict))]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
