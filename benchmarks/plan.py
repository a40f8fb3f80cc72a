"""What to measure: shapes, precisions, sections, and how often; checked before anything heavy runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks import shapes
from decodecli.errors import UsageError
from decodecli.ranges import check_choice, check_positive
from decodecli.settings import DTYPES, QUANTIZE, LoadParams

# In the order of measuring. Those in MODEL are measured on every model, the others once; sweep is both.
SECTIONS = {
    "decode": "tokens/s with the full trace, against transformers' generate",
    "trace": "tables drawn at a pseudo-terminal, against no trace at all",
    "bandwidth": "the share of the memory's bandwidth that decoding reaches",
    "sweep": "many cells at once, against generate for each and a process for each",
    "llama": "against llama.cpp on the same shape (needs llama-cpp-python and gguf)",
    "load": "loading from the cache of quantized weights, against quantizing",
    "sampler": "filters, draw and trace at a 128 k vocabulary, against transformers' processors",
    "start": "start-up, against an empty Typer app and a bare script",
    "neighbours": "two processes at once, and one beside a busy loop",
    "memory": "growth of the process with every step of a trace",
}
MODEL = ("decode", "trace", "bandwidth", "sweep", "llama", "load")
QUANTIZED = ("nf4", "fp4", "int8")
_CPU, _CUDA = ("float32", "bfloat16", "nf4"), ("bfloat16", "nf4")


@dataclass(frozen=True)
class Plan:
    """One run of the benchmark, as asked for; empty means the default of `resolved`.

    shapes, model: random models of these shapes, or one real model.
    dtypes, quantize: number types, and schemes of quantization (each with each).
    tokens: how many tokens a decoding takes; None leaves it to the model's size.
    repeat: repetitions of each side.
    only: the sections to run.
    quick: one short repetition of everything, to see that it works.
    """

    shapes: tuple[str, ...] = ()
    model: str | None = None
    revision: str | None = None
    dtypes: tuple[str, ...] = ()
    quantize: tuple[str, ...] = ()
    device: str = "auto"
    threads: int | None = None
    tokens: int | None = None
    repeat: int = 5
    only: tuple[str, ...] = ()
    quick: bool = False
    command: tuple[str, ...] = field(default=("python", "-m", "benchmarks"), compare=False)

    def __post_init__(self) -> None:
        shapes.check_names(list(self.shapes))
        if self.shapes and self.model is not None:
            raise UsageError(
                "--shape and --model exclude each other", "run the benchmark once for each"
            )
        for dtype in self.dtypes:
            check_choice("dtype", dtype, DTYPES[1:])
        for scheme in self.quantize:
            check_choice("quantize", scheme, QUANTIZE[1:])
        LoadParams(model=self.model or shapes.BUILTIN, device=self.device)
        for section in self.only:
            if section not in SECTIONS:
                raise UsageError(
                    f"--only must be one of {', '.join(SECTIONS)}; got {section}", "see --help"
                )
        check_positive("repeat", self.repeat, "5 is the default")
        if self.tokens is not None:
            check_positive("tokens", self.tokens, "128 is a usual choice", lowest=4)
        if self.threads is not None:
            check_positive("threads", self.threads, "the number of cores is a usual choice")

    @property
    def repetitions(self) -> int:
        return 1 if self.quick else self.repeat

    def sections(self) -> tuple[str, ...]:
        """The sections to run, in their order."""
        return tuple(name for name in SECTIONS if not self.only or name in self.only)

    def models(self, device: str) -> tuple[str, ...]:
        """The shapes, or the one real model, to measure on this device."""
        if self.model is not None:
            return (self.model,)
        if self.shapes:
            return tuple(dict.fromkeys(self.shapes))
        if self.quick:
            return (shapes.BUILTIN,)
        if device.startswith("cuda"):
            return (shapes.BUILTIN, "llama-8b")
        return (shapes.BUILTIN, "gpt2", "llama-1b")

    def precisions(self, device: str) -> tuple[str, ...]:
        """Number types and schemes by which each model is held: "float32", …, "nf4", …

        A scheme of quantization computes in bfloat16 unless one number type was asked for: then it
        is spelt "nf4/float16".
        """
        if not self.dtypes and not self.quantize:
            if self.quick:
                return ("float32",)
            return _CUDA if device.startswith("cuda") else _CPU
        found: list[str] = []
        for scheme in self.quantize or ("none",):
            if scheme == "none":
                found += self.dtypes or ("float32",)
            else:
                found += [f"{scheme}/{dtype}" for dtype in self.dtypes] or [scheme]
        return tuple(dict.fromkeys(name.removesuffix("/bfloat16") for name in found))


def dtype_and_scheme(precision: str) -> tuple[str, str]:
    """A precision's number type and scheme: "nf4" is bfloat16 and nf4, "float32" is float32 and none."""
    scheme, _, dtype = precision.partition("/")
    if scheme in QUANTIZED:
        return dtype or "bfloat16", scheme
    return scheme, "none"
