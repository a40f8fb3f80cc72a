"""How much of the memory's bandwidth decoding reaches, counted in bytes that a token has to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from decodecli.bench.machine import free_memory
from decodecli.bench.measure import Stopwatch, alternate
from decodecli.bench.report import Row, Target, at_least, compared
from decodecli.bench.subjects import FILTERS, Subject, is_quantized, traced

if TYPE_CHECKING:
    from torch import Tensor

GIB = 2**30
_PEER = "the memory, measured by reading"
_WIDE = 4096  # columns of the matrix that is read


def bandwidth_rows(subject: Subject, repeat: int, quick: bool) -> Iterator[Row]:
    """GB/s that decoding reads against GB/s that the device can read; the 4-bit kernel besides."""
    device = str(subject.lm.info.device)
    watch, speed = subject.speed.watch, subject.speed
    read, how = memory_reader(device, watch, GIB // 64 if quick else 2 * GIB)
    needed = bytes_per_token(subject.lm.model, len(subject.prompt) + speed.long / 2)
    run = traced(subject, FILTERS)
    what = "decoding with the full trace"
    sides = {what: lambda: needed * speed.tokens_per_second(run) / 1e9, _PEER: read}
    found = alternate(sides, repeat)
    note = f"a token reads {needed / 1e6:,.1f} MB; memory read by {how}; {subject.how}"
    targets = {_PEER: wanted} if (wanted := _target(subject)) else {}
    yield from compared("bandwidth", subject.label, what, found, "GB/s", targets, note)
    if is_quantized(subject.precision):
        yield from _kernel_rows(subject, repeat, read)


def _target(subject: Subject) -> Target | None:
    if not (subject.on_gpu and subject.name == "llama-8b"):
        return None
    return at_least(0.4) if is_quantized(subject.precision) else at_least(0.7)


def memory_reader(device: str, watch: Stopwatch, size: int) -> tuple[Callable[[], float], str]:
    """What measures GB/s once, by the quickest of several ways to read `size` bytes, and its name."""
    import torch

    free = free_memory(device)
    size = min(size, free // 4) if free else size
    rows = max(size // (4 * _WIDE), 1)
    plain = torch.ones((rows, _WIDE), dtype=torch.float32, device=device)
    halves = plain.view(torch.bfloat16)
    vectors = {kind.dtype: torch.ones(kind.shape[1], dtype=kind.dtype, device=device)
               for kind in (plain, halves)}  # fmt: skip
    ways: dict[str, Callable[[], Tensor]] = {
        "a float32 sum": plain.sum,
        "a float32 matrix-vector product": lambda: plain @ vectors[plain.dtype],
        "a bfloat16 matrix-vector product": lambda: halves @ vectors[halves.dtype],
    }

    def rate(run: Callable[[], Tensor]) -> float:
        calls = 10 if device.startswith("cuda") else 1
        with torch.inference_mode():
            return plain.nbytes / watch.per_call(run, calls) / 1e9

    tried = {name: (rate(run), max(rate(run) for _ in range(2)))[1] for name, run in ways.items()}
    best = max(tried, key=lambda name: tried[name])
    return (lambda: rate(ways[best])), best


def bytes_per_token(model: Any, length: float) -> float:
    """Bytes that one more token must read: all weights but the rows of the embeddings that are not
    asked for, and the keys and values of `length` positions."""
    import torch

    head = model.get_output_embeddings()
    head_weight = getattr(head, "weight", None)
    seen: set[int] = set()
    total = 0.0
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if id(weight) in seen:
                continue
            lookup = isinstance(module, torch.nn.Embedding) and weight is not head_weight
            if lookup:
                total += weight[0].nbytes
            else:
                seen.add(id(weight))
                total += weight.nbytes + _constants(getattr(weight, "quant_state", None))
    return total + length * cache_bytes(model)


def cache_bytes(model: Any) -> int:
    """Bytes of keys and values of one position."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def _constants(state: Any) -> int:
    """Bytes of the scales that come with 4-bit weights (quantized themselves, with scales again)."""
    if state is None:
        return 0
    total = _constants(getattr(state, "state2", None))
    for name in ("absmax", "code", "offset"):
        total += int(getattr(getattr(state, name, None), "nbytes", 0))
    return total


def _kernel_rows(subject: Subject, repeat: int, read: Callable[[], float]) -> Iterator[Row]:
    """The 4-bit layers alone, one after the other, without anything between them."""
    what = "the quantized layers alone"
    layers = [
        module
        for module in subject.lm.model.modules()
        if getattr(getattr(module, "weight", None), "quant_state", None) is not None
    ]
    if not layers:
        reason = "no bitsandbytes 4-bit layers in the model as it is loaded"
        yield Row("bandwidth", subject.label, what, _PEER, skipped=reason)
        return
    size = sum(m.weight.nbytes + _constants(m.weight.quant_state) for m in layers)
    run, how = _all_layers(layers, subject)
    watch = subject.speed.watch
    sides = {what: lambda: size / watch.per_call(run, 5) / 1e9, _PEER: read}
    found = alternate(sides, repeat)
    note = f"{len(layers)} layers, {size / 1e6:,.1f} MB, {how}"
    yield from compared("bandwidth", subject.label, what, found, "GB/s", note=note)


def _all_layers(layers: list[Any], subject: Subject) -> tuple[Callable[[], None], str]:
    """What runs every layer once on one row, in a CUDA graph where that works."""
    import torch

    device, dtype = str(subject.lm.info.device), subject.lm.model.dtype
    rows = {m: torch.randn(1, 1, m.in_features, device=device).to(dtype) for m in layers}

    @torch.inference_mode()
    def run() -> None:
        for layer, row in rows.items():
            layer(row)

    run()
    if not subject.on_gpu:
        return run, "one after the other"
    try:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            run()
    except RuntimeError:
        return run, "launched one by one (they cannot be captured)"
    return graph.replay, "replayed as one CUDA graph"
