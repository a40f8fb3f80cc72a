"""A sequence's forward passes: one for the prompt, then one a token, on a key-value cache.

Where `decodecli.models.forward` has the architecture, it runs all of them. Every other model runs by its
own `forward`: it makes its own cache, whatever its architecture calls it, and hands it back with its
output; a model that keeps none is run over the whole sequence each time.
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
from decodecli.models.kv_cache import DynamicKVCache
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
    """Forward passes of one sequence on `network`, in inference mode.

    Args:
        network: a decoder that is written out, or a causal language model of transformers.
        fallback_reason: why the model's own `forward` runs it, where that is wanted.

    `fallback_reason` says why the model's own code runs; None while it does not.
    """

    def __init__(self, network: Any, *, fallback_reason: str | None = None) -> None:
        self.network, self.fallback_reason = network, fallback_reason
        self.forward: DecoderForward | None = None
        if isinstance(network, DecoderForward):
            self.forward, self.device = network, network.device
        else:
            self.device = input_device(network)
            self._arguments: dict[str, Any] = {"use_cache": True, "return_dict": True}
            if "logits_to_keep" in inspect.signature(network.forward).parameters:
                self._arguments["logits_to_keep"] = 1  # only the last position's logits are needed
            if fallback_reason is None:
                try:
                    self.forward = build_forward(network)
                except UnsupportedModel as unsupported:
                    self.fallback_reason = str(unsupported)
        self.forget()

    def forget(self) -> None:
        """Let go of the cache; the next thing to run is a prompt."""
        self._ids: Tensor | None = None
        self._kv_cache: DynamicKVCache | None = None
        self._model_cache: dict[str, Any] = {}  # in its place, where the model's own code runs

    @torch.inference_mode()
    def prefill(self, ids: list[int]) -> Tensor:
        """Run the whole prompt; returns the logits after it, (1, vocab) float32."""
        self.forget()
        self._ids = self._tensor(ids)
        if self.forward is None:
            return self._run_model(self._ids)
        logits, self._kv_cache = self.forward.prefill(self._ids)
        return logits.to(torch.float32)

    @torch.inference_mode()
    def step(self, token: Tensor) -> Tensor:
        """Run one more token, (1, 1); returns the logits after it, (1, vocab) float32."""
        assert self._ids is not None, "prefill comes first"
        token = token.to(self.device)
        if self.forward is not None and self._kv_cache is not None:
            return self.forward.extend(token, self._kv_cache).to(torch.float32)
        if self._model_cache:
            return self._run_model(token)
        self._ids = torch.cat((self._ids, token), dim=1)
        return self._run_model(self._ids)

    @torch.inference_mode()
    def step_rows(self, rows: Tensor, sequences: Tensor) -> Tensor:
        """Logits after each of `sequences` (n, length), (n, vocab) float32: each goes on by one token
        from the sequence of that row, (n,), of those so far."""
        rows, sequences = rows.to(self.device), sequences.to(self.device)
        if self.forward is not None and self._kv_cache is not None:
            self._kv_cache = self._kv_cache.select(rows)
            return self.forward.extend(sequences[:, -1:], self._kv_cache).to(torch.float32)
        cache: Any = self._model_cache.get("past_key_values")
        if cache is not None and hasattr(cache, "reorder_cache"):
            cache.reorder_cache(rows)
            return self._run_model(sequences[:, -1:])
        self._model_cache = {}  # what cannot be put in another order is made again
        return self._run_model(sequences)

    @torch.inference_mode()
    def resume(self, ids: list[int], length: int) -> Tensor:
        """Logits after `ids`, (1, vocab) float32, of which the first `length` begin the sequence so
        far: its cache is cut there, or, where that cannot be done, all run again."""
        if self.forward is not None and self._kv_cache is not None:
            self._kv_cache.length = length
            return self.forward.extend(self._tensor(ids[length:]), self._kv_cache).float()
        cache: Any = self._model_cache.get("past_key_values")
        try:
            surplus = cache.get_seq_length() - length
            if surplus > 0:
                cache.crop(-surplus)
        except (AttributeError, NotImplementedError, RuntimeError, ValueError):
            return self.prefill(ids)  # not every cache can be cut
        return self._run_model(self._tensor(ids[length:]))

    @torch.inference_mode()
    def all_logits(self, ids: list[int]) -> Tensor:
        """Logits after each of `ids`, (length, vocab), in the model's number type; no cache is kept."""
        if self.forward is not None:
            return self.forward.all_logits(self._tensor(ids))
        logits: Tensor = self.network(input_ids=self._tensor(ids), use_cache=False).logits[0]
        return logits

    def written_out(self) -> tuple[DecoderForward, DynamicKVCache]:
        """The decoder, and the keys and values so far, which are not to be changed.

        Raises:
            UnsupportedModel: the model's own code runs.
        """
        if self.forward is None or self._kv_cache is None:
            raise UnsupportedModel(self.fallback_reason or "there is no prompt yet")
        return self.forward, self._kv_cache

    @property
    def backend(self) -> str:
        """What runs the tokens, in words."""
        if self.forward is not None:
            return "directly, on the model's weights"
        return f"by the model's own code: {self.fallback_reason}"

    def fork(self) -> ModelRunner:
        """A second sequence that goes on from here; neither disturbs the other."""
        other = copy.copy(self)
        if self._kv_cache is not None:
            other._kv_cache = self._kv_cache.fork()
        other._model_cache = copy.deepcopy(self._model_cache)
        return other

    def _tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], dtype=torch.long, device=self.device)

    def _run_model(self, ids: Tensor) -> Tensor:
        try:
            output = self.network(input_ids=ids, **self._model_cache, **self._arguments)
        except Exception as error:
            if out_of_memory(error):
                raise
            folder = Path(self.network.config.name_or_path)
            loaded = (folder / "config.json").is_file()
            raise DecodeError(
                f"the model cannot run this prompt: {reason(error, folder if loaded else None)}",
                "does its config.json belong to its weights? --debug shows where it failed",
            ) from error
        for name in _CACHES:
            if (cache := getattr(output, name, None)) is not None:
                self._model_cache = {name: cache}
        return output.logits[:, -1].to(copy=True, dtype=torch.float32)
