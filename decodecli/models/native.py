"""A checkpoint of a known architecture → its forward pass, without transformers: weights are mapped from
safetensors as they lie there, and only converted where another number type is asked for."""

from __future__ import annotations

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
# A tensor's name in transformers → its file, its name there, and its type as safetensors spells it.
Stored = dict[str, tuple[Path, str, str]]


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
        stored[name] = file, known, tensor["dtype"]
    return stored


def read(
    config: DecoderConfig, stored: Stored, device: str, dtype: torch.dtype
) -> tuple[DecoderForward, int]:
    """The forward pass on these weights, and how many they are."""
    from safetensors import safe_open

    def tensor(name: str) -> Tensor:
        """Each in a mapping of its own, whose pages go back to the system when the tensor is dropped."""
        file, known, _ = stored[name]
        with safe_open(file, framework="pt") as tensors:
            mapped: Tensor = tensors.get_tensor(known)
            return mapped.to(device, dtype)

    tensors = {name: tensor(name) for name in stored}
    table = "transformer.wte.weight" if config.model_type == "gpt2" else "model.embed_tokens.weight"
    embeddings = tensors[table]
    tied = config.tied and (_HEAD not in tensors or torch.equal(tensors[_HEAD], embeddings))
    parameters = sum(t.numel() for name, t in tensors.items() if not (tied and name == _HEAD))
    copies = device == "cpu" and parameters < _SMALL
    if tied:
        # A head that will be packed is mapped apart from the table, which stays.
        mapped = device == "cpu" and dtype == torch.bfloat16 and stored[table][2] == "BF16"
        tensors[_HEAD] = tensor(table) if mapped and not copies else embeddings
    return assemble(config, TensorWeights(tensors, copies)), parameters
