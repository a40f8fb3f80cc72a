"""How fast a model decodes on this machine: with the full trace, without, and by transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from decodecli.analysis.timing import Samples, Speed, Stopwatch, alternate
from decodecli.decoding.decode import decode, generate
from decodecli.models.loading import LanguageModel
from decodecli.models.machine import device_memory
from decodecli.models.memory_estimate import kv_cache_bytes
from decodecli.settings import SamplingParams

SAMPLING = SamplingParams(temperature=0.8, top_k=50, top_p=0.9, seed=0)
TRACED, UNTRACED, GENERATE = "full trace", "no trace", "transformers generate"
_PROMPT = (1,)  # the prompt is no part of any figure
_COLUMNS = 4096  # of the matrix that is read
_READ = 2**31  # bytes


@dataclass(frozen=True)
class SpeedReport:
    """Tokens/s of decoding alone, side by side, and the share of the memory's bandwidth.

    tokens: of one run; samples: side → tokens/s, a value for each repetition.
    megabytes_per_token: what one more token must read, 10⁶ bytes.
    memory: GB/s of reading a large tensor.
    """

    model: dict[str, Any]
    threads: int
    tokens: int
    samples: dict[str, Samples]
    megabytes_per_token: float
    memory: Samples

    @property
    def bandwidth_share(self) -> float:
        """Bytes that decoding with the full trace reads in a second, by those that can be read."""
        return self.samples[TRACED].median * self.megabytes_per_token / 1e3 / self.memory.median

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "type": "bench",
            "schema": 2,
            "model": self.model,
            "threads": self.threads,
            "tokens": self.tokens,
            "tokens_per_second": {name: s.as_dict() for name, s in self.samples.items()},
            "megabytes_per_token": self.megabytes_per_token,
            "memory_gb_per_second": self.memory.as_dict(),
            "bandwidth_share": self.bandwidth_share,
        }


def measure_speed(lm: LanguageModel, tokens: int | None = None, repeat: int = 5) -> SpeedReport:
    """Decode `tokens` tokens `repeat` times on each side, the sides taking turns.

    Both sides sample at temperature 0.8, top-k 50, top-p 0.9 from a prompt of one token, and no token
    ends a text. Tokens/s are those of a run less one of an eighth of its length. `generate` is called on
    the model as transformers loads it.
    """
    lm, peer = endless(lm)
    speed = run_lengths(lm, tokens)
    sides: dict[str, Callable[[int], None]] = {
        TRACED: partial(traced, lm, _PROMPT, SAMPLING),
        UNTRACED: partial(untraced, lm, _PROMPT, SAMPLING),
        GENERATE: partial(transformers_generate, peer, _PROMPT, SAMPLING),
    }
    rates = {name: partial(speed.tokens_per_second, run) for name, run in sides.items()}
    samples = alternate(rates, repeat)
    read, _ = memory_reader(str(lm.info.device), speed.watch, _READ)
    return SpeedReport(
        model=asdict(lm.info),
        threads=torch.get_num_threads(),
        tokens=speed.long,
        samples=samples,
        megabytes_per_token=bytes_per_token(peer, 1 + speed.long / 2) / 1e6,
        memory=alternate({"read": read}, repeat)["read"],
    )


def endless(lm: LanguageModel) -> tuple[LanguageModel, Any]:
    """The same model, and transformers' model beside it, whose texts no token ends."""
    from transformers import GenerationConfig

    peer = lm.parts.peer()
    peer.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=None)
    return replace(lm, eos_ids=frozenset()), peer


def run_lengths(lm: LanguageModel, tokens: int | None, prompt_tokens: int = 1) -> Speed:
    """How many tokens the long and the short run take, by the model's size where none are given."""
    device, parameters = str(lm.info.device), lm.info.parameters
    small = device.startswith("cuda") or parameters < 50_000_000
    long = tokens or (160 if small else 64 if parameters < 500_000_000 else 16)
    if lm.context is not None:
        long = max(min(long, lm.context - prompt_tokens), 4)
    return Speed(stopwatch(device), max(long // 8, 2), long)


def stopwatch(device: str) -> Stopwatch:
    """A stopwatch that waits for the device."""
    if not device.startswith("cuda"):
        return Stopwatch()
    return Stopwatch(settle=partial(torch.cuda.synchronize, device))


def traced(
    lm: LanguageModel,
    prompt: Sequence[int],
    params: SamplingParams,
    count: int,
    candidates: int = 10,
) -> None:
    """Our decoding of `count` tokens with every record kept."""
    kept = generate(lm, prompt, replace(params, max_new_tokens=count), candidates=candidates)
    assert kept.summary.new_tokens == count, "stopped early"


def untraced(lm: LanguageModel, prompt: Sequence[int], params: SamplingParams, count: int) -> None:
    """Our decoding of `count` tokens without candidates, each record dropped at once."""
    steps = decode(lm, prompt, replace(params, max_new_tokens=count), candidates=0)
    assert sum(1 for _ in steps) == count, "stopped early"


def transformers_generate(
    model: Any, prompt: Sequence[int], params: SamplingParams, count: int, **more: Any
) -> None:
    """transformers' `generate` of `count` tokens, every value passed."""
    ids = torch.tensor([prompt], device=model.device)
    torch.manual_seed(0)
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        max_new_tokens=count,
        **more,
    )
    tokens = (output if isinstance(output, Tensor) else output.sequences).tolist()
    assert len(tokens[0]) == len(prompt) + count, "generate stopped early"


def memory_reader(device: str, watch: Stopwatch, size: int) -> tuple[Callable[[], float], str]:
    """What measures GB/s once, by the quickest of several ways to read `size` bytes, and its name."""
    size = min(size, device_memory(device).free // 4)
    rows = max(size // (4 * _COLUMNS), 1)
    matrix = torch.ones((rows, _COLUMNS), dtype=torch.float32, device=device)
    halves = matrix.view(torch.bfloat16)
    vector, half_vector = matrix.new_ones(_COLUMNS), halves.new_ones(halves.shape[1])
    ways: dict[str, Callable[[], Tensor]] = {
        "a float32 sum": matrix.sum,
        "a float32 matrix-vector product": lambda: matrix @ vector,
        "a bfloat16 matrix-vector product": lambda: halves @ half_vector,
    }

    def rate(run: Callable[[], Tensor]) -> float:
        calls = 10 if device.startswith("cuda") else 1
        with torch.inference_mode():
            return matrix.nbytes / watch.per_call(run, calls) / 1e9

    rates = alternate({name: partial(rate, run) for name, run in ways.items()}, repeat=2)
    best = max(rates, key=lambda name: max(rates[name].values))
    return partial(rate, ways[best]), best


def bytes_per_token(model: Any, length: float) -> int:
    """Bytes that one more token must read: all weights but the rows of the embeddings that are not
    asked for, and the keys and values of `length` positions."""
    head = getattr(model.get_output_embeddings(), "weight", None)
    weights: dict[int, int] = {}  # by identity: tied ones are read once
    rows = 0
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if isinstance(module, torch.nn.Embedding) and weight is not head:
                rows += weight[0].nbytes
            else:
                constants = quantization_constants(getattr(weight, "quant_state", None))
                weights[id(weight)] = weight.nbytes + constants
    config = model.config.get_text_config()
    cache = kv_cache_bytes(config, int(length), model.dtype.itemsize)
    return rows + sum(weights.values()) + cache


def quantization_constants(state: Any) -> int:
    """Bytes of the scales that come with 4-bit weights (quantized themselves, with scales again)."""
    if state is None:
        return 0
    parts = [getattr(state, name, None) for name in ("absmax", "code", "offset")]
    return sum(int(getattr(part, "nbytes", 0)) for part in parts) + quantization_constants(
        getattr(state, "state2", None)
    )
