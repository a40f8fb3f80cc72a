"""A name or path and `LoadParams` → `LanguageModel`: weights, tokenizer, and what `auto` became."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from decodecli.library_logging import quiet_libraries
from decodecli.models import from_transformers, native, quantization
from decodecli.models.cache_files import read_ahead
from decodecli.models.checkpoint import Checkpoint, Progress, find_checkpoint
from decodecli.models.detokenize import piece_of
from decodecli.models.load_errors import advice, explained
from decodecli.models.machine import check_threads, choose_threads
from decodecli.models.memory_estimate import context_length
from decodecli.models.model_files import read_json
from decodecli.models.resolve import (
    DTYPES,
    check_max_memory,
    choose_device,
    choose_dtype,
    choose_quantize,
)
from decodecli.models.runner import ModelRunner, input_device
from decodecli.models.supported import DEFAULTS, UnsupportedModel
from decodecli.models.tokenizer import light_tokenizer, load_transformers_tokenizer
from decodecli.records.run import ModelInfo
from decodecli.settings import LoadParams
from decodecli.stages import ORDER


class Parts:
    """What runs, and the transformers objects, which are made when they are first asked for.

    Args:
        network: a `DecoderForward`, or a transformers model.
        tokenizer: with the interface of transformers' that is used here.
        make_model, make_tokenizer: make the transformers objects where those are not.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        make_model: Callable[[], Any] | None = None,
        make_tokenizer: Callable[[], Any] | None = None,
    ) -> None:
        self.network, self.tokenizer = network, tokenizer
        self._make_model, self._make_tokenizer = make_model, make_tokenizer

    def model(self) -> Any:
        """The transformers model. From here on it is what runs: something may be changed in it."""
        if self._make_model is not None:
            self.network, self._make_model = self._make_model(), None
        return self.network

    def peer(self) -> Any:
        """The transformers model beside what runs here, with weights of its own where that is ours."""
        return self.network if self._make_model is None else self._make_model()

    def hf_tokenizer(self) -> Any:
        """The transformers tokenizer."""
        if self._make_tokenizer is not None:
            self.tokenizer, self._make_tokenizer = self._make_tokenizer(), None
        return self.tokenizer


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model ready to decode.

    parts: what runs it.
    info: what was loaded, for the header.
    context: how many positions the model has, None when it sets no limit.
    eos_ids, bos_id: the ids that end a text, and the one that begins it.
    notices: what the user should know about this model.
    checkpoint: where it was loaded from, None for a model that was wrapped.
    loader: what read the weights, and why.
    fallback_reason: why the model's own code runs it, where that was asked for.
    """

    parts: Parts
    info: ModelInfo
    context: int | None
    eos_ids: frozenset[int]
    bos_id: int | None
    load_seconds: float = 0.0
    notices: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    loader: str = "transformers: it was given"
    fallback_reason: str | None = None

    @property
    def model(self) -> Any:
        """The transformers model, loaded when it is first asked for."""
        return self.parts.model()

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, loaded when it is first asked for."""
        return self.parts.hf_tokenizer()

    @property
    def codec(self) -> Any:
        """The tokenizer that is in use: transformers', or one with the part of its interface that is
        needed here."""
        return self.parts.tokenizer

    def runner(self) -> ModelRunner:
        """What runs one sequence."""
        return ModelRunner(self.parts.network, fallback_reason=self.fallback_reason)

    def __repr__(self) -> str:
        info = self.info
        quantized = f", {info.quantize}" if info.quantize != "none" else ""
        return (
            f"LanguageModel({info.name!r}, {info.parameters:,} parameters, "
            f"{info.dtype}, {info.device}{quantized})"
        )

    @classmethod
    def wrap(cls, model: Any, tokenizer: Any, name: str = "model") -> LanguageModel:
        """A transformers model and tokenizer that are loaded already.

        >>> lm = LanguageModel.wrap(model, tokenizer)
        """
        head = getattr(model.get_output_embeddings(), "out_features", None)
        config, settings = model.config.get_text_config(), getattr(model, "generation_config", None)
        return cls(
            Parts(model.eval(), tokenizer),
            info=ModelInfo(
                name=name,
                revision=None,
                parameters=model.num_parameters(),
                vocab_size=int(head or config.vocab_size),
                dtype=str(model.dtype).removeprefix("torch."),
                device=str(input_device(model)),
                quantize="none",
            ),
            context=context_length(config),
            eos_ids=_eos_ids(
                *(getattr(o, "eos_token_id", None) for o in (settings, config, tokenizer))
            ),
            bos_id=tokenizer.bos_token_id,
            notices=_sampling_notices({} if settings is None else settings.to_diff_dict(), name),
        )

    def what_fits(self) -> str:
        """A line of advice for when memory has run out while decoding."""
        held = self.info.dtype if self.info.quantize == "none" else self.info.quantize
        if self.checkpoint is None:
            return "try a shorter prompt, or a smaller model"
        return advice(self.checkpoint, self.info.device, held, "try a shorter prompt; ")

    def piece(self, token_id: int) -> str:
        """The vocabulary's piece, exactly; `<id N>` for ids that the tokenizer does not know."""
        return piece_of(self.codec, token_id) or f"<id {token_id}>"


def load(
    model: str | Path | LoadParams = "builtin",
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str = "auto",
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    max_memory: str | None = None,
    threads: int | None = None,
    loader: str = "auto",
    progress: Progress = lambda _: None,
    verbose: bool = False,
    auto_threads: bool = False,
) -> LanguageModel:
    """Load any causal language model of transformers by hub name or local folder.

    Args:
        model: "builtin", a folder, a hub name, or a `LoadParams` that says everything.
        max_memory: what each device may hold, as "0=10GiB,cpu=30GiB"; the rest goes to disk.
        threads: how many threads PyTorch works with on a CPU, in the whole process.
        loader: "auto" reads and runs known architectures without transformers; "transformers" has it
            do both for every model.
        progress: called with a few words as loading goes on.
        verbose: let third-party logging through.
        auto_threads: choose the number of threads by the model's size where none is given; the
            command line does, a program's own setting is left alone.

    Raises:
        LoadError: the model is missing, unreadable or of a kind that cannot be used.
        UsageError: a value is out of range, or asks for what this machine does not have.
    """
    params = model
    if not isinstance(params, LoadParams):
        params = LoadParams(
            str(params), revision, str(device), dtype, quantize, allow_pickle, trust_remote_code,
            max_memory, threads, loader,
        )  # fmt: skip
    start = time.perf_counter()
    device = choose_device(params.device)
    if device == "cpu":
        check_threads(params.threads)
    checkpoint = find_checkpoint(params, progress)
    quantize = choose_quantize(params.quantize, device, checkpoint)
    dtype = choose_dtype(params.dtype, quantize, checkpoint)
    check_max_memory(params)
    if device == "cpu" and (auto_threads or params.threads):
        count = choose_threads(checkpoint.parameters, params.threads)
        if count is not None:
            torch.set_num_threads(count)
    progress(f"loading {params.model}")
    cached = quantization.cached_file(checkpoint, quantize, dtype, device)
    read_ahead([cached] if cached else sorted(checkpoint.folder.glob("*.safetensors")))
    with explained(checkpoint, device, dtype if quantize == "none" else quantize):
        try:
            lm = _load_native(params, checkpoint, device, dtype, quantize, verbose)
        except UnsupportedModel as unsupported:
            lm = _load_with_transformers(params, checkpoint, device, dtype, quantize, verbose)
            lm = replace(lm, loader=f"transformers: {unsupported}")
    return replace(lm, load_seconds=time.perf_counter() - start, checkpoint=checkpoint)


def choose_loader(
    params: LoadParams, checkpoint: Checkpoint, device: str, dtype: str, quantize: str
) -> str:
    """What would read and run a checkpoint, "native" or "transformers", and why."""
    try:
        device_map = from_transformers.device_map_of(params, checkpoint, device, dtype, quantize)
        config, _ = native.plan(params, checkpoint, quantize, device_map)
    except UnsupportedModel as unsupported:
        return f"transformers: {unsupported}"
    return f"native: {config.model_type} is written out here"


def _load_native(
    params: LoadParams,
    checkpoint: Checkpoint,
    device: str,
    dtype: str,
    quantize: str,
    verbose: bool,
) -> LanguageModel:
    """The model on our own forward pass.

    Raises:
        UnsupportedModel: it is none for it.
    """
    device_map = from_transformers.device_map_of(params, checkpoint, device, dtype, quantize)
    config, stored = native.plan(params, checkpoint, quantize, device_map)
    with quiet_libraries(verbose):
        tokenizer = light_tokenizer(checkpoint.folder, params.model)
    own_tokenizer = tokenizer is not None
    if tokenizer is None:
        tokenizer = _hf_tokenizer(params, checkpoint, verbose)
    network, parameters = native.read(config, stored, device, DTYPES[dtype])

    def make_model() -> Any:
        with from_transformers.quiet_transformers(verbose):
            return from_transformers.load_model(params, checkpoint, device, dtype, quantize)[0]

    def make_tokenizer() -> Any:
        return _hf_tokenizer(params, checkpoint, verbose)

    generation = checkpoint.folder / "generation_config.json"
    settings = read_json(generation) if generation.is_file() else {}
    values = {**DEFAULTS[config.model_type], **checkpoint.config}
    return LanguageModel(
        Parts(network, tokenizer, make_model, make_tokenizer if own_tokenizer else None),
        info=ModelInfo(
            name=params.model,
            revision=checkpoint.revision,
            parameters=parameters,
            vocab_size=config.vocab_size,
            dtype=dtype,
            device=device,
            quantize="none",
        ),
        context=config.context,
        eos_ids=_eos_ids(
            settings.get("eos_token_id"), values["eos_token_id"], tokenizer.eos_token_id
        ),
        bos_id=tokenizer.bos_token_id,
        notices=_sampling_notices(settings, params.model),
        loader=f"native: {config.model_type} is written out here",
    )


def _load_with_transformers(
    params: LoadParams,
    checkpoint: Checkpoint,
    device: str,
    dtype: str,
    quantize: str,
    verbose: bool,
) -> LanguageModel:
    with from_transformers.quiet_transformers(verbose):
        network, notices = from_transformers.load_model(params, checkpoint, device, dtype, quantize)
    lm = LanguageModel.wrap(network, _hf_tokenizer(params, checkpoint, verbose), params.model)
    info = replace(
        lm.info,
        revision=checkpoint.revision,
        dtype=dtype,
        device=from_transformers.device_names(network, device),
        quantize=quantize if getattr(network, "is_quantized", False) else "none",
    )
    forced = "--loader transformers" if params.loader == "transformers" else None
    return replace(lm, info=info, notices=(*lm.notices, *notices), fallback_reason=forced)


def _hf_tokenizer(params: LoadParams, checkpoint: Checkpoint, verbose: bool) -> Any:
    with from_transformers.quiet_transformers(verbose):
        return load_transformers_tokenizer(
            checkpoint.folder, params.model, params.trust_remote_code
        )


def _eos_ids(*values: Any) -> frozenset[int]:
    """The ids that end a text: of the values that say so the first, a model's generation settings before
    its configuration, and that before its tokenizer."""
    value = next((value for value in values if value is not None), ())
    return frozenset(value if isinstance(value, list | tuple) else [value])


def _sampling_notices(settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Sampling values that the model's generation settings suggest and that are not applied."""
    sampling = {key: settings[key] for key in ORDER if settings.get(key) is not None}
    if not sampling:
        return ()
    values = ", ".join(f"{key}={value}" for key, value in sampling.items())
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in sampling.items())
    return (f"{name} suggests {values} for sampling; not applied (use {flags})",)
