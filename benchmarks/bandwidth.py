"""How much of the memory's bandwidth decoding reaches, counted in bytes that a token has to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.report import Row, Target, at_least, compared
from benchmarks.subjects import FILTERS, Subject, is_quantized, traced
from decodecli.analysis.speed import bytes_per_token, memory_reader, quantization_constants
from decodecli.analysis.timing import alternate

if TYPE_CHECKING:
    pass

GIB = 2**30
_PEER = "the memory, measured by reading"


def bandwidth_rows(subject: Subject, repeat: int, quick: bool) -> Iterator[Row]:
    """GB/s that decoding reads against GB/s that the device can read; the 4-bit kernel besides."""
    device = str(subject.lm.info.device)
    watch, speed = subject.speed.watch, subject.speed
    read, how = memory_reader(device, watch, GIB // 64 if quick else 2 * GIB)
    needed = bytes_per_token(subject.peer, len(subject.prompt) + speed.long / 2)
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


def _kernel_rows(subject: Subject, repeat: int, read: Callable[[], float]) -> Iterator[Row]:
    """The 4-bit layers alone, one after the other, without anything between them."""
    what = "the quantized layers alone"
    layers = [
        module
        for module in subject.peer.modules()
        if getattr(getattr(module, "weight", None), "quant_state", None) is not None
    ]
    if not layers:
        reason = "no bitsandbytes 4-bit layers in the model as it is loaded"
        yield Row("bandwidth", subject.label, what, _PEER, skipped=reason)
        return
    size = sum(m.weight.nbytes + quantization_constants(m.weight.quant_state) for m in layers)
    run, how = _all_layers(layers, subject)
    watch = subject.speed.watch
    sides = {what: lambda: size / watch.per_call(run, 5) / 1e9, _PEER: read}
    found = alternate(sides, repeat)
    note = f"{len(layers)} layers, {size / 1e6:,.1f} MB, {how}"
    yield from compared("bandwidth", subject.label, what, found, "GB/s", note=note)


def _all_layers(layers: list[Any], subject: Subject) -> tuple[Callable[[], None], str]:
    """What runs every layer once on one row, in a CUDA graph where that works."""
    import torch

    device, dtype = str(subject.lm.info.device), subject.peer.dtype
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
