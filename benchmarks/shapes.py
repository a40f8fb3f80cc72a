"""Models of well-known shapes with random weights, written to a folder without a download.

The folder is an ordinary one: config.json, model.safetensors, and a byte-level tokenizer of as many
made-up words as the vocabulary has entries; so what is measured is what loading from disk gives.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decodecli.byte_level import ALPHABET
from decodecli.errors import DecodeError, UsageError

BUILTIN = "builtin"
# Random numbers that are drawn once and repeated. A prime, so that no two rows of a matrix are the same:
# equal logits, of which a real model has hardly any, would send every step the slow way.
_BLOCK = (1 << 22) - 3
_SPREAD = 0.02  # standard deviation of the weights, as models start out
_SHARPNESS = 3.0  # the last norm's scale: distributions that are neither flat nor certain
_ITEMS = {"float32": 4, "bfloat16": 2, "float16": 2, "nf4": 0.5625, "fp4": 0.5625, "int8": 1}


@dataclass(frozen=True)
class Shape:
    """The exact shape of a public model.

    of: the public model.
    stored: the type that its weights are published in.
    parameters: how many; `head` of them are in the output matrix, which is never quantized.
    """

    name: str
    of: str
    stored: str
    parameters: int
    head: int
    config: dict[str, Any]

    def bytes_needed(self, precision: str) -> int:
        """Memory for the weights in "float32", "bfloat16", …, or "nf4", "fp4", "int8"."""
        if precision in ("nf4", "fp4", "int8"):
            return int((self.parameters - self.head) * _ITEMS[precision]) + self.head * 2
        return int(self.parameters * _ITEMS[precision])

    @property
    def bytes_on_disk(self) -> int:
        return int(self.parameters * _ITEMS[self.stored])


def _llama(**sizes: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 128256,
        "num_key_value_heads": 8,
        "num_attention_heads": 32,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": None,
        "dtype": "bfloat16",
        **sizes,
    }


def _rope(factor: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            "gpt2",
            "GPT-2, 124 M",
            "float32",
            124_439_808,
            50257 * 768,
            {
                "model_type": "gpt2",
                "architectures": ["GPT2LMHeadModel"],
                "vocab_size": 50257,
                "n_embd": 768,
                "n_layer": 12,
                "n_head": 12,
                "n_positions": 1024,
                "bos_token_id": 0,
                "eos_token_id": None,
                "dtype": "float32",
            },
        ),
        Shape(
            "llama-1b",
            "Llama 3.2, 1 B",
            "bfloat16",
            1_235_814_400,
            128256 * 2048,
            _llama(
                hidden_size=2048,
                num_hidden_layers=16,
                intermediate_size=8192,
                head_dim=64,
                tie_word_embeddings=True,
                rope_parameters=_rope(32.0),
            ),
        ),
        Shape(
            "llama-8b",
            "Llama 3.1, 8 B",
            "bfloat16",
            8_030_261_248,
            2 * 128256 * 4096,
            _llama(
                hidden_size=4096,
                num_hidden_layers=32,
                intermediate_size=14336,
                head_dim=128,
                tie_word_embeddings=False,
                rope_parameters=_rope(8.0),
            ),
        ),
    )
}
NAMES = (BUILTIN, *SHAPES)


def check_names(names: list[str]) -> None:
    """`UsageError` for a shape that there is not."""
    for name in names:
        if name not in NAMES:
            raise UsageError(
                f"--shape must be one of {', '.join(NAMES)}; got {name}",
                "for another model, give --model NAME_OR_PATH",
            )


def write_model(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    """A folder with a random model of this configuration and its tokenizer; returns the folder.

    Raises:
        DecodeError: there is not enough room on the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _write_weights(folder / "model.safetensors", config, seed)
    made_up_tokenizer(int(config["vocab_size"])).save_pretrained(folder)
    return folder


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this configuration stores."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    known = {key: value for key, value in config.items() if key not in ("model_type", "dtype")}
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config["model_type"], **known)
        )
    head, embeddings = network.get_output_embeddings(), network.get_input_embeddings()
    tied = head.weight is embeddings.weight
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if tied:
        found.pop("lm_head.weight", None)
    return found


def _write_weights(path: Path, config: dict[str, Any], seed: int) -> None:
    """Write model.safetensors piece by piece, so that memory for the model is not needed."""
    import shutil

    import torch

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config["dtype"]]
    code = {"float32": "F32", "bfloat16": "BF16"}[config["dtype"]]
    shapes = tensor_shapes(config)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + _count(shape) * dtype.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    if shutil.disk_usage(path.parent).free < end * 1.05:
        raise DecodeError(
            f"the random weights take {end / 2**30:.1f} GiB, and the folder for temporary files "
            "has less",
            "point TMPDIR at a larger disk",
        )
    random = torch.Generator().manual_seed(seed)
    block = (torch.randn(_BLOCK, generator=random) * _SPREAD).to(dtype)
    noise = block.view(torch.uint8).numpy().tobytes()
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for name, shape in shapes.items():
            for piece in _data(name, _count(shape), dtype, noise):
                file.write(piece)


def _data(name: str, count: int, dtype: Any, noise: bytes) -> Iterator[bytes | memoryview]:
    """The bytes of one tensor: norms are constant, biases zero, everything else noise."""
    import torch

    last = name.endswith(("ln_f.weight", "model.norm.weight"))
    if last or name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight")):
        scale = torch.full((count,), _SHARPNESS if last else 1.0, dtype=dtype)
        yield scale.view(torch.uint8).numpy().tobytes()
        return
    if name.endswith(".bias"):
        yield bytes(count * dtype.itemsize)
        return
    left = count * dtype.itemsize
    while left > 0:
        yield memoryview(noise)[:left]
        left -= len(noise)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def made_up_tokenizer(vocabulary: int) -> Any:
    """A byte-level tokenizer: a token for each byte, then made-up words up to this many entries.

    Token 0 is the beginning of a text, and nothing ends one.
    """
    import tokenizers as tk
    from transformers import PreTrainedTokenizerFast

    pieces = ["<s>", *ALPHABET]
    number = 0
    while len(pieces) < vocabulary:
        pieces.append("Ġ" + _word(number))
        number += 1
    entries = {piece: place for place, piece in enumerate(pieces[:vocabulary])}
    inner = tk.Tokenizer(tk.models.BPE(vocab=entries, merges=[]))
    inner.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = tk.decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", clean_up_tokenization_spaces=False
    )


def _word(number: int) -> str:
    """A pronounceable word of its own for each number."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 75)
        letters += "bdfgklmnprstvzw"[rest // 5] + "aeiou"[rest % 5]
    return letters
