"""The model's forward passes: one for the prompt, then one a token, on a key-value cache.

The prompt goes through the model's own `forward`. So do the tokens after it, unless the architecture
is one that `decodecli.models.forward` writes out. The model makes its own cache, whatever its
architecture calls it, and hands it back with its output; a model that keeps none is run over the whole
sequence each time.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decodecli.errors import DecodeError
from decodecli.models.forward import DecoderForward, build_forward
from decodecli.models.kv_cache import DynamicKVCache, prompt_tensors
from decodecli.models.load_errors import out_of_memory
from decodecli.models.model_files import reason
from decodecli.models.supported import UnsupportedModel

# Where transformers' models hand back their cache, which is also the argument that takes it.
_CACHES = ("past_key_values", "cache_params", "state")


def input_device(model: Any) -> torch.device:
    """Where token ids go in: the embeddings' device, or where accelerate runs them when their weights
    are kept elsewhere."""
    embeddings = model.get_input_embeddings()
    device: torch.device = embeddings.weight.device
    if device.type != "meta":
        return device
    hook = getattr(embeddings, "_hf_hook", None)
    return torch.device(getattr(hook, "execution_device", None) or "cpu")


class ModelRunner:
    """Forward passes of one sequence on `model`, in inference mode.

    `fallback_reason` says why the tokens go through the model's own `forward`; None while they do not,
    or before the first. Given, it has them go there.
    """

    def __init__(self, model: Any, *, fallback_reason: str | None = None) -> None:
        self.model = model
        self.fallback_reason = fallback_reason
        self.device = input_device(model)
        self._arguments: dict[str, Any] = {"use_cache": True, "return_dict": True}
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            self._arguments["logits_to_keep"] = 1  # only the last position's logits are needed
        self.forget()

    def forget(self) -> None:
        """Let go of the cache; the next thing to run is a prompt."""
        self._ids: Tensor | None = None
        self._model_cache: dict[str, Any] = {}
        self._forward: DecoderForward | None = None  # once it is what runs the tokens …
        self._kv_cache: DynamicKVCache | None = None  # … on this cache

    @torch.inference_mode()
    def prefill(self, ids: list[int]) -> Tensor:
        """Run the whole prompt; returns the logits after it, (1, vocab) float32."""
        self.forget()
        self._ids = torch.tensor([ids], dtype=torch.long, device=self.device)
        return self._run_model(self._ids)

    @torch.inference_mode()
    def step(self, token: Tensor) -> Tensor:
        """Run one more token, (1, 1); returns the logits after it, (1, vocab) float32."""
        assert self._ids is not None, "prefill comes first"
        if self._forward is None and self.fallback_reason is None:
            self._take_over()
        token = token.to(self.device)
        if self._forward is not None and self._kv_cache is not None:
            return self._forward.step(token, self._kv_cache).to(torch.float32)
        if self._model_cache:
            return self._run_model(token)
        self._ids = torch.cat((self._ids, token), dim=1)
        return self._run_model(self._ids)

    def cache(self) -> Any:
        """The cache of keys and values that the prompt left, of transformers' making; to be asked for
        before the first step.

        Raises:
            UnsupportedModel: there is none.
        """
        cache = self._model_cache.get("past_key_values")
        if cache is None:
            raise UnsupportedModel("it keeps no cache of keys and values")
        return cache

    @property
    def backend(self) -> str:
        """What runs the tokens, in words."""
        if self._forward is not None:
            return "directly, on the model's weights"
        return f"by the model's own code: {self.fallback_reason}"

    def fork(self) -> ModelRunner:
        """A second sequence that goes on from here; neither disturbs the other."""
        other = copy.copy(self)
        if self._kv_cache is not None:
            other._kv_cache = self._kv_cache.fork()
        elif self.fallback_reason is None:
            other._take_over()  # which leaves the model's own cache as it is
        if other._kv_cache is None:
            other._model_cache = copy.deepcopy(self._model_cache)
        return other

    def _take_over(self) -> None:
        """Go on with the written-out forward pass on a copy of the cache, where that is possible."""
        assert self._ids is not None
        try:
            cache, length = self.cache(), self._ids.shape[1]
            forward = build_forward(self.model)
            tensors = prompt_tensors(cache, length, forward.windows)
        except UnsupportedModel as unsupported:
            self.fallback_reason = str(unsupported)
            return
        self._forward, self._kv_cache = forward, DynamicKVCache(length, *tensors)
        self._model_cache = {}

    def _run_model(self, ids: Tensor) -> Tensor:
        try:
            output = self.model(input_ids=ids, **self._model_cache, **self._arguments)
        except Exception as error:
            if out_of_memory(error):
                raise
            folder = Path(self.model.config.name_or_path)
            loaded = (folder / "config.json").is_file()
            raise DecodeError(
                f"the model cannot run this prompt: {reason(error, folder if loaded else None)}",
                "does its config.json belong to its weights? --debug shows where it failed",
            ) from error
        for name in _CACHES:
            if (cache := getattr(output, name, None)) is not None:
                self._model_cache = {name: cache}
        return output.logits[:, -1].to(copy=True, dtype=torch.float32)
