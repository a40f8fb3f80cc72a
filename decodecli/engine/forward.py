"""The model's forward passes: one for the prompt, then one a token, on a key-value cache.

The model makes its own cache, whatever its architecture calls it, and hands it back with its output.
A model that keeps none is run over the whole sequence each time.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

# Where transformers' models hand back their cache, and the argument that takes it.
_CACHES = {"past_key_values": "past_key_values", "cache_params": "cache_params", "state": "state"}


def input_device(model: Any) -> torch.device:
    """Where token ids go in: the embeddings' device, or where accelerate runs them when their weights
    are kept elsewhere."""
    embeddings = model.get_input_embeddings()
    device: torch.device = embeddings.weight.device
    if device.type != "meta":
        return device
    hook = getattr(embeddings, "_hf_hook", None)
    return torch.device(getattr(hook, "execution_device", None) or "cpu")


class Forward:
    """Forward passes of one sequence on `model`, in inference mode."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = input_device(model)
        accepted = inspect.signature(model.forward).parameters
        self._fixed: dict[str, Any] = {"use_cache": True, "return_dict": True}
        if "logits_to_keep" in accepted:  # only the last position's logits are needed
            self._fixed["logits_to_keep"] = 1
        self._cache: dict[str, Any] = {}
        self._ids: Tensor | None = None

    @torch.inference_mode()
    def prefill(self, ids: list[int]) -> Tensor:
        """Run the whole prompt; returns the logits after it, (1, vocab) float32."""
        self._cache = {}
        self._ids = torch.tensor([ids], dtype=torch.long, device=self.device)
        return self._run(self._ids)

    @torch.inference_mode()
    def step(self, token: Tensor) -> Tensor:
        """Run one more token, (1, 1); returns the logits after it, (1, vocab) float32."""
        if self._cache:
            return self._run(token.to(self.device))
        assert self._ids is not None, "prefill comes first"
        self._ids = torch.cat((self._ids, token.to(self.device)), dim=1)
        return self._run(self._ids)

    def fork(self) -> Forward:
        """A second sequence that goes on from here; neither disturbs the other."""
        other = copy.copy(self)
        other._cache = {name: copy.deepcopy(cache) for name, cache in self._cache.items()}
        return other

    def _run(self, ids: Tensor) -> Tensor:
        output = self.model(input_ids=ids, **self._cache, **self._fixed)
        for name, argument in _CACHES.items():
            cache = getattr(output, name, None)
            if cache is not None:
                self._cache = {argument: cache}
        return output.logits[:, -1].to(copy=True, dtype=torch.float32)
