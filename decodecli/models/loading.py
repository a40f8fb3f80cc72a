"""A name or path and `LoadParams` → `LanguageModel`: weights, tokenizer, and what `auto` became."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from decodecli.errors import LoadError
from decodecli.library_logging import quiet_libraries
from decodecli.memory_size import memory_limits
from decodecli.models import quantization
from decodecli.models.cache_files import read_ahead
from decodecli.models.checkpoint import Checkpoint, Progress, find_checkpoint
from decodecli.models.detokenize import piece_of
from decodecli.models.load_errors import advice, explained
from decodecli.models.machine import check_threads, choose_threads
from decodecli.models.memory_estimate import Headers, context_length
from decodecli.models.model_files import blamed_on, first_line, reason
from decodecli.models.resolve import (
    DTYPES,
    check_max_memory,
    choose_device,
    choose_dtype,
    choose_quantize,
)
from decodecli.models.runner import input_device
from decodecli.records.run import ModelInfo
from decodecli.settings import ORDER, LoadParams


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model ready to decode.

    model, tokenizer: the transformers objects.
    info: what was loaded, for the header.
    context: how many positions the model has, None when it sets no limit.
    eos_ids, bos_id: the ids that end a text, and the one that begins it.
    notices: what the user should know about this model.
    checkpoint: where it was loaded from, None for a model that was wrapped.
    """

    model: Any
    tokenizer: Any
    info: ModelInfo
    context: int | None
    eos_ids: frozenset[int]
    bos_id: int | None
    load_seconds: float = 0.0
    notices: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None

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
        info = ModelInfo(
            name=name,
            revision=None,
            parameters=model.num_parameters(),
            vocab_size=_vocab_size(model),
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(input_device(model)),
            quantize="none",
        )
        return cls(
            model=model.eval(),
            tokenizer=tokenizer,
            info=info,
            context=context_length(model.config.get_text_config()),
            eos_ids=_eos_ids(model, tokenizer),
            bos_id=tokenizer.bos_token_id,
            notices=_generation_notices(model, name),
        )

    def what_fits(self) -> str:
        """A line of advice for when memory has run out while decoding."""
        held = self.info.dtype if self.info.quantize == "none" else self.info.quantize
        if self.checkpoint is None:
            return "try a shorter prompt, or a smaller model"
        return advice(self.checkpoint, self.info.device, held, "try a shorter prompt; ")

    def piece(self, token_id: int) -> str:
        """The vocabulary's piece, exactly; `<id N>` for ids that the tokenizer does not know."""
        return piece_of(self.tokenizer, token_id) or f"<id {token_id}>"


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
    progress: Progress = lambda _: None,
    verbose: bool = False,
    auto_threads: bool = False,
) -> LanguageModel:
    """Load any causal language model of transformers by hub name or local folder.

    Args:
        model: "builtin", a folder, a hub name, or a `LoadParams` that says everything.
        max_memory: what each device may hold, as "0=10GiB,cpu=30GiB"; the rest goes to disk.
        threads: how many threads PyTorch works with on a CPU, in the whole process.
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
            max_memory, threads,
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
    with (
        _quiet(verbose),
        explained(checkpoint, device, dtype if quantize == "none" else quantize),
    ):
        network, notices = _load_model(params, checkpoint, device, dtype, quantize)
        lm = LanguageModel.wrap(network, _load_tokenizer(params, checkpoint), params.model)
    info = replace(
        lm.info,
        revision=checkpoint.revision,
        dtype=dtype,
        device=_device_names(network, device),
        quantize=quantize if getattr(network, "is_quantized", False) else "none",
    )
    return replace(
        lm,
        info=info,
        load_seconds=time.perf_counter() - start,
        notices=(*lm.notices, *notices),
        checkpoint=checkpoint,
    )


def _load_model(
    params: LoadParams, checkpoint: Checkpoint, device: str, dtype: str, quantize: str
) -> tuple[Any, tuple[str, ...]]:
    """The model in evaluation mode, and notices of how it was loaded."""
    _check_architecture(checkpoint, params)
    device_map = _device_map(params, checkpoint, device, dtype, quantize)
    if quantize in quantization.SCHEMES:
        cacheable = isinstance(device_map, dict)
        if cacheable:
            network = quantization.load_cached(checkpoint, quantize, dtype, device)
            if network is not None:
                return network, ()
        network = _from_pretrained(params, checkpoint, dtype, quantize, device_map)
        quantization.check_quantized(network, checkpoint, quantize, device)
        if cacheable:
            return network, quantization.cache(network, checkpoint, quantize, dtype, device)
        return network, ()
    network = _from_pretrained(params, checkpoint, dtype, quantize, device_map)
    if quantize != "none":
        if "bitsandbytes" in sys.modules:
            quantization.prepare_layers(network, device)
        if not getattr(network, "is_quantized", False):
            return network, (
                f"transformers holds the {quantize} weights of {checkpoint.name} as {dtype} here",
            )
    return network, ()


def _from_pretrained(
    params: LoadParams, checkpoint: Checkpoint, dtype: str, quantize: str, device_map: Any
) -> Any:
    from transformers import AutoModelForCausalLM

    arguments: dict[str, Any] = {
        "dtype": DTYPES[dtype],
        "local_files_only": True,
        "use_safetensors": None if params.allow_pickle else True,
        "trust_remote_code": params.trust_remote_code,
        "return_dict": True,  # whatever config.json says
        "ignore_mismatched_sizes": True,  # the report names them
    }
    if quantize in quantization.SCHEMES:
        arguments["quantization_config"] = quantization.scheme_settings(quantize, dtype)
    if device_map is not None:
        arguments["device_map"] = device_map
    if params.max_memory is not None:
        arguments["max_memory"] = memory_limits(params.max_memory)
    network, report = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, output_loading_info=True, **arguments
    )
    for name, stored, expected in sorted(report["mismatched_keys"]):
        raise LoadError(
            f"the weights of {checkpoint.name} do not have the shapes that its config.json says: "
            f"{name} is {list(stored)}, not {list(expected)}",
            "copy the original model's config.json into the folder",
        )
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise LoadError(
            f"{checkpoint.name} lacks {len(missing)} of its weights ({missing[0]}, …)",
            "is the download complete, and does config.json belong to it?",
        )
    return network.eval()


def _device_map(
    params: LoadParams, checkpoint: Checkpoint, device: str, dtype: str, quantize: str
) -> Any:
    """One device, or accelerate's plan over all of them when the weights do not fit on one; None for
    a plain model on the CPU."""
    if params.max_memory is not None:
        return "auto"
    quantized = quantize in quantization.SCHEMES
    if params.device == "auto" and device.startswith("cuda"):
        needed = checkpoint.parameters * DTYPES[dtype].itemsize
        if quantized:  # they must lie whole on GPUs
            needed = Headers.of(checkpoint).weight_bytes(quantize, device)
        free, _ = torch.cuda.mem_get_info(device)
        if needed * 1.1 > free and (torch.cuda.device_count() > 1 or not quantized):
            return "auto"
    if device == "cpu" and not quantized:
        return None
    return {"": device}


def _check_architecture(checkpoint: Checkpoint, params: LoadParams) -> None:
    """Refuse what is not a decoder with a language-model head, before reading any weights."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if params.trust_remote_code and checkpoint.config.get("auto_map"):
        return
    kind = str(checkpoint.config.get("model_type"))
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # each library has its own for a configuration it cannot take
        import transformers

        if checkpoint.config.get("auto_map"):
            raise LoadError(
                f"{checkpoint.name} brings its own code",
                "add --trust-remote-code if you trust its source",
            ) from error
        if kind not in transformers.CONFIG_MAPPING:
            raise LoadError(
                f"{checkpoint.name} is of architecture {kind!r}, "
                f"which transformers {transformers.__version__} does not know",
                "a newer transformers may know it: pip install -U transformers",
            ) from error
        raise LoadError(
            f"config.json of {checkpoint.name} cannot be used: {reason(error, checkpoint.folder)}",
            "copy the original model's config.json into the folder",
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise LoadError(
            f"{checkpoint.name} is an encoder-decoder model ({kind})",
            "decodecli runs decoder-only (causal) models",
        )
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    named = list(map(str, config.architectures or []))
    wrong = named and not causal.intersection(named)
    if wrong or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise LoadError(
            f"{checkpoint.name} is no causal language model ({', '.join(named) or kind})",
            "give a decoder-only model, one whose class ends in ForCausalLM",
        )


def _load_tokenizer(params: LoadParams, checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    with blamed_on(f"the tokenizer of {checkpoint.name}", folder=checkpoint.folder):
        try:
            return AutoTokenizer.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                trust_remote_code=params.trust_remote_code,
                clean_up_tokenization_spaces=False,
            )
        except ImportError as error:
            raise LoadError(
                f"the tokenizer of {checkpoint.name} needs a package that is not installed: "
                + first_line(error),
                "pip install sentencepiece protobuf",
            ) from error


@contextlib.contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Keep third-party logging, progress bars and prints off both streams."""
    if verbose:
        yield
        return
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    from transformers.utils import logging as noise

    level, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        with (
            quiet_libraries(allowed=False),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            yield
    finally:
        noise.set_verbosity(level)
        if bars:
            noise.enable_progress_bar()


def _vocab_size(model: Any) -> int:
    head = model.get_output_embeddings()
    features = getattr(head, "out_features", None)
    return int(features or model.config.get_text_config().vocab_size)


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end a text: the model's own, else its configuration's, else the tokenizer's."""
    settings = getattr(model, "generation_config", None)
    for owner in (settings, model.config.get_text_config(), tokenizer):
        value = getattr(owner, "eos_token_id", None)
        if value is not None:
            return frozenset(value if isinstance(value, list | tuple) else [value])
    return frozenset()


def _generation_notices(model: Any, name: str) -> tuple[str, ...]:
    """Sampling values that the model suggests and that are not applied."""
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return ()
    suggested = settings.to_diff_dict()
    sampling = {key: suggested[key] for key in ORDER if suggested.get(key) is not None}
    if not sampling:
        return ()
    values = ", ".join(f"{key}={value}" for key, value in sampling.items())
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in sampling.items())
    return (f"{name} suggests {values} for sampling; not applied (use {flags})",)


def _device_names(model: Any, device: str) -> str:
    devices = getattr(model, "hf_device_map", None)
    if devices and (len(set(devices.values())) > 1 or "disk" in devices.values()):
        names = [f"cuda:{d}" if isinstance(d, int) else str(d) for d in devices.values()]
        return "+".join(sorted(set(names)))
    return device
