"""The model's forward passes: one for the prompt, then one a token, on a key-value cache.

The prompt goes through the model's own `forward`. So do the tokens after it, unless the architecture
is one that `direct` writes out. The model makes its own cache, whatever its architecture calls it,
and hands it back with its output; a model that keeps none is run over the whole sequence each time.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

from decodecli.errors import DecodeError
from decodecli.models.forward import ForwardStep, plan
from decodecli.models.load_errors import out_of_memory
from decodecli.models.model_files import first_line
from decodecli.models.supported import UnsupportedModel

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
    """Forward passes of one sequence on `model`, in inference mode.

    `own_way` says why the tokens go through the model's own `forward`; None while they do not, or
    before the first.
    """

    def __init__(self, model: Any, *, direct: bool = True) -> None:
        self.model = model
        self.own_way: str | None = None if direct else "asked for"
        self._direct: ForwardStep | None = None
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
        self._cache, self._direct = {}, None
        self._ids = torch.tensor([ids], dtype=torch.long, device=self.device)
        return self._run(self._ids)

    @torch.inference_mode()
    def step(self, token: Tensor) -> Tensor:
        """Run one more token, (1, 1); returns the logits after it, (1, vocab) float32."""
        assert self._ids is not None, "prefill comes first"
        if self._direct is None and self.own_way is None:
            self._go_direct()
        if self._direct is not None:
            return self._direct(token.to(self.device)).to(copy=True, dtype=torch.float32)
        if self._cache:
            return self._run(token.to(self.device))
        self._ids = torch.cat((self._ids, token.to(self.device)), dim=1)
        return self._run(self._ids)

    def forget(self) -> None:
        """Let go of the cache; nothing can be run from here any more."""
        self._cache, self._direct, self._ids = {}, None, None

    def cache(self) -> Any:
        """The cache of keys and values that the prompt left, of transformers' making; to be asked for
        before the first step.

        Raises:
            UnsupportedModel: there is none.
        """
        cache = self._cache.get("past_key_values")
        if cache is None or self._ids is None:
            raise UnsupportedModel("it keeps no cache of keys and values")
        return cache

    @property
    def how(self) -> str:
        """How the tokens are run."""
        if self._direct is not None:
            return "directly, on the model's weights"
        return f"by the model's own code: {self.own_way}"

    def fork(self) -> Forward:
        """A second sequence that goes on from here; neither disturbs the other."""
        other = copy.copy(self)
        if self._direct is None and self.own_way is None:
            other._go_direct()  # which leaves the model's own cache as it is
        elif self._direct is not None:
            other._direct = self._direct.fork()
        if other._direct is not None:
            return other
        other._cache = {name: copy.deepcopy(cache) for name, cache in self._cache.items()}
        return other

    def _go_direct(self) -> None:
        """Take the model's cache over into one with room, where the architecture is known."""
        try:
            cache = self.cache()
            assert self._ids is not None
            self._direct = ForwardStep(plan(self.model), cache, self._ids.shape[1])
        except UnsupportedModel as unknown:
            self.own_way = str(unknown)
            return
        self._cache = {}

    def _run(self, ids: Tensor) -> Tensor:
        try:
            output = self.model(input_ids=ids, **self._cache, **self._fixed)
        except Exception as error:
            if out_of_memory(error):
                raise
            raise DecodeError(
                f"the model cannot run this prompt: {first_line(error)}",
                "does its config.json belong to its weights? --debug shows where it failed",
            ) from error
        for name, argument in _CACHES.items():
            cache = getattr(output, name, None)
            if cache is not None:
                self._cache = {argument: cache}
        return output.logits[:, -1].to(copy=True, dtype=torch.float32)
