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

_TYPES = {
    "F64": ("<f8", "float64"),
    "F32": ("<f4", "float32"),
    "F16": ("<f2", "float16"),
    "BF16": ("<u2", "bfloat16"),
    "F8_E4M3": ("u1", "float8_e4m3fn"),
    "F8_E5M2": ("u1", "float8_e5m2"),
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
        for row in ids:
            if not 0 <= row < self.rows:
                raise IndexError(row)
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
        kind = np.dtype(next(raw for raw, name in _TYPES.values() if name == self.dtype))
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
    if dtype == "float8_e4m3fn":
        return _float8_e4m3fn()[raw]
    return raw.astype(np.float32, copy=False)


def _float8_e4m3fn() -> Floats32:
    """The 256 values of the type (Micikevicius et al. 2022, arXiv 2209.05433): no infinities."""
    codes = np.arange(256)
    exponent, fraction = (codes >> 3) & 15, (codes & 7) / 8
    size = np.where(exponent == 0, fraction * 2.0**-6, (1 + fraction) * 2.0 ** (exponent - 7.0))
    size[(codes & 127) == 127] = np.nan
    return np.where(codes < 128, size, -size).astype(np.float32)


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
    tensors = _Tensors(checkpoint, vocabulary)
    matrix = tensors.pick(INPUT, "input")
    tied = setting(checkpoint.config, "tie_word_embeddings")
    has_output = any(matches(name, suffix) for suffix in OUTPUT for name in tensors.headers)
    if tied is True or (tied is None and not has_output):
        return EmbeddingMatrices(matrix, matrix, tied=True)
    if output or has_output:
        try:
            return EmbeddingMatrices(matrix, tensors.pick(OUTPUT, "output"), tied=False)
        except LoadError:
            if output:
                raise
    return EmbeddingMatrices(matrix, None, tied=False)


class _Tensors:
    """The tensors of a folder by name, and what an embedding matrix must look like."""

    def __init__(self, checkpoint: Checkpoint, vocabulary: int) -> None:
        self.name, self.vocabulary = checkpoint.name, vocabulary
        self.hidden = sorted(_hidden_sizes(checkpoint.config))
        self.headers: dict[str, tuple[Path, dict[str, Any]]] = {}
        for file in weight_files(checkpoint.folder):
            for name, tensor in safetensors_header(file).items():
                self.headers[name] = (file, tensor)

    def pick(self, suffixes: Sequence[str], kind: str) -> StoredMatrix:
        """The one matrix that a suffix names and whose shape fits."""
        misfit = ""
        for suffix in suffixes:
            named = [name for name in self.headers if matches(name, suffix)]
            fitting = [name for name in named if self._fits(name)]
            depth = min((name.count(".") for name in fitting), default=0)
            fitting = [name for name in fitting if name.count(".") == depth]
            if len(fitting) > 1:
                raise LoadError(
                    f"several tensors of {self.name} could be its {kind} embeddings: "
                    + _some(fitting),
                    "a checkpoint with one language model is needed",
                )
            if fitting:
                return self._matrix(fitting[0])
            misfit = misfit or (named[0] if named else "")
        raise self._misfit(misfit) if misfit else self._nothing(kind)

    def _fits(self, name: str) -> bool:
        return self._is_large(name) and (
            not self.hidden or self.headers[name][1]["shape"][1] in self.hidden
        )

    def _is_large(self, name: str) -> bool:
        shape = self.headers[name][1]["shape"]
        return len(shape) == 2 and shape[0] >= self.vocabulary and shape[1] > 0

    def _matrix(self, name: str) -> StoredMatrix:
        file, tensor = self.headers[name]
        if tensor.get("dtype") not in _TYPES:
            raise LoadError(
                f"{name} of {self.name} is stored as {tensor.get('dtype')}, which is no number type",
                "give the model before its embeddings were quantized",
            )
        with file.open("rb") as opened:
            start = 8 + int.from_bytes(opened.read(8), "little")
        rows, columns = tensor["shape"]
        dtype = _TYPES[tensor["dtype"]][1]
        return StoredMatrix(name, file, dtype, rows, columns, start + tensor["data_offsets"][0])

    def _misfit(self, name: str) -> LoadError:
        shape = " × ".join(f"{size:,}" for size in self.headers[name][1]["shape"])
        wide = f", hidden size {self.hidden[0]:,}" if self.hidden else ""
        return LoadError(
            f"{name} of {self.name} is {shape}; expected were {self.vocabulary:,} rows or more{wide}",
            "do tokenizer and config.json belong to these weights, and are they unquantized?",
        )

    def _nothing(self, kind: str) -> LoadError:
        large = [name for name in self.headers if self._is_large(name)]
        known = (
            f"matrices with enough rows: {_some(large)}" if large else "no matrix has enough rows"
        )
        return LoadError(
            f"{self.name} has no tensor with a known name for {kind} embeddings",
            f"{known}; known are {_some(INPUT if kind == 'input' else OUTPUT)}",
        )


def matches(name: str, suffix: str) -> bool:
    """Whether a tensor's name ends in `suffix` and belongs to no layer."""
    in_layer = any(part.isdigit() for part in name.split("."))
    return not in_layer and (name == suffix or name.endswith("." + suffix))


def setting(config: dict[str, Any], key: str) -> Any:
    """A value of config.json, or of the part of it that describes the language model."""
    return next((part[key] for part in _parts(config) if part.get(key) is not None), None)


def _hidden_sizes(config: dict[str, Any]) -> set[int]:
    sizes = (part.get(key) for part in _parts(config) for key in _HIDDEN)
    return {size for size in sizes if isinstance(size, int) and size > 0}


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [config.get(name) for name in _INNER]
    return [config, *(part for part in inner if isinstance(part, dict))]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
