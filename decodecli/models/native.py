"""A checkpoint of a known architecture → its forward pass, without transformers: weights are mapped from
safetensors as they lie there, and only converted where another number type is asked for."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decodecli.models.checkpoint import Checkpoint
from decodecli.models.forward import DecoderForward, TensorWeights, assemble
from decodecli.models.model_files import safetensors_header, weight_files
from decodecli.models.supported import DTYPES, DecoderConfig, UnsupportedModel
from decodecli.settings import LoadParams

_HEAD = "lm_head.weight"
_SMALL = 300_000_000  # parameters; a copy of more would be felt
Stored = dict[
    str, tuple[Path, str]
]  # a tensor's name in transformers → its file, and its name there


def plan(
    params: LoadParams, checkpoint: Checkpoint, quantize: str, device_map: Any
) -> tuple[DecoderConfig, Stored]:
    """What the forward pass needs to know of a checkpoint, and where its weights lie. This is where the
    choice of the loader is made, from config.json and the headers of the weights.

    Raises:
        UnsupportedModel: transformers loads the model, and why.
    """
    if params.loader == "transformers":
        raise UnsupportedModel("--loader transformers")
    if quantize != "none":
        raise UnsupportedModel(f"its weights are in {quantize}")
    if device_map == "auto":
        raise UnsupportedModel("it is spread over devices")
    if "auto_map" in checkpoint.config:
        raise UnsupportedModel("it brings its own code")
    config = DecoderConfig.of(checkpoint.config)
    return config, _locate(checkpoint.folder, config)


def _locate(folder: Path, config: DecoderConfig) -> Stored:
    one, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if one.is_file() == index.is_file() or (folder / "adapter_config.json").is_file():
        raise UnsupportedModel("its weights are in files of another kind")
    headers = {
        name: (file, tensor)
        for file in weight_files(folder)
        for name, tensor in safetensors_header(file).items()
    }
    shapes = config.weight_shapes()
    if _HEAD in headers:  # beside the embeddings that it is tied to
        shapes.setdefault(_HEAD, (config.vocab_size, config.hidden_size))
    stored: Stored = {}
    for name, shape in shapes.items():
        # A model saved without its head lacks the first part of the names.
        known = name if name in headers else name.partition(".")[2]
        if known not in headers:
            raise UnsupportedModel(f"its weights lack {name}")
        file, tensor = headers[known]
        if tuple(tensor["shape"]) != shape or tensor["dtype"] not in DTYPES:
            raise UnsupportedModel(f"{name} is {tensor['dtype']} {tensor['shape']}")
        stored[name] = file, known
    return stored


def read(
    config: DecoderConfig, stored: Stored, device: str, dtype: torch.dtype
) -> tuple[DecoderForward, int]:
    """The forward pass on these weights, and how many they are."""
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        files = {
            file: stack.enter_context(safe_open(file, framework="pt"))
            for file in {file for file, _ in stored.values()}
        }
        for name, (file, known) in stored.items():
            tensors[name] = files[file].get_tensor(known).to(device, dtype)
    gpt2 = config.model_type == "gpt2"
    embeddings = tensors["transformer.wte.weight" if gpt2 else "model.embed_tokens.weight"]
    if config.tied and (_HEAD not in tensors or torch.equal(tensors[_HEAD], embeddings)):
        tensors[_HEAD] = embeddings
    parameters = sum(tensor.numel() for tensor in {id(t): t for t in tensors.values()}.values())
    copies = device == "cpu" and parameters < _SMALL
    return assemble(config, TensorWeights(tensors, copies)), parameters
