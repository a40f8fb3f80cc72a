"""What a run can be told: frozen, validated once, and the only place with defaults.

Names are transformers' own (`GenerationConfig`); "off" is the neutral value of each filter, and no
filter is on unless asked for. A value out of range raises `UsageError` with the range in its message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decodecli.errors import UsageError
from decodecli.memory_size import memory_limits

BUILTIN = "builtin"
BUILTIN_PROMPT = "Once upon a time,"
SEED_LIMIT = 2**32

DTYPES = ("auto", "float32", "bfloat16", "float16")
LOADERS = ("auto", "transformers")
QUANTIZE = ("auto", "none", "nf4", "fp4", "int8")
COLORS = ("auto", "always", "never")
TABLES = ("full", "line", "none")


@dataclass(frozen=True)
class LoadParams:
    """Which model, and how it is held in memory.

    `max_memory` limits what each device may hold, as `0=10GiB,cpu=30GiB`; what is beyond goes to the
    next one, and in the end to disk. `threads` is how many a CPU works with, None to leave it. `loader`
    "transformers" has transformers read and run every model, "auto" only those that are not written out.

    Raises:
        UsageError: a value is out of its range.
    """

    model: str = BUILTIN
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = "auto"
    allow_pickle: bool = False
    trust_remote_code: bool = False
    max_memory: str | None = None
    threads: int | None = None
    loader: str = "auto"

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("--model is empty", "give a folder, a hub name, or builtin", "model")
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("quantize", self.quantize, QUANTIZE)
        check_choice("loader", self.loader, LOADERS)
        if not re.fullmatch(r"auto|mps|cpu|cuda(:\d+)?", self.device, re.ASCII):
            wanted = f"auto, cuda, cuda:N, mps or cpu, got {self.device}"
            raise _bad_value("device", wanted, "auto takes a GPU when there is one")
        if self.threads is not None:
            check_positive("threads", self.threads, "leave it out to choose by the model's size")
        if self.max_memory is not None:
            limits = memory_limits(self.max_memory)
            if self.device not in ("auto", "cpu"):
                problem = f"--max-memory goes with --device auto, not {self.device}"
                raise UsageError(problem, "leave --device out", "max_memory")
            if self.device == "cpu" and set(limits) != {"cpu"}:
                problem = f"--max-memory {self.max_memory}: --device cpu has no GPUs"
                hint = "leave --device out, or limit the cpu alone"
                raise UsageError(problem, hint, "max_memory")


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is picked. The defaults sample from the model's own distribution.

    `temperature=0` is greedy decoding. Stages, in the order in which they apply:

    - repetition_penalty: divides positive and multiplies negative logits of tokens already in the
      sequence, prompt included (Keskar et al. 2019, arXiv 1909.05858). 1 is off.
    - no_repeat_ngram_size: bans the token that would complete an n-gram already there
      (Paulus et al. 2017, arXiv 1705.04304). 0 is off.
    - top_nsigma: logits at most this many standard deviations below the highest, deviation over those
      not banned (Tang et al. 2024, arXiv 2411.07641). 0 is off. It runs before the temperature, which
      therefore does not change what it keeps.
    - temperature: divides the logits (Ackley et al. 1985).
    - top_k: the k most probable, and ties with the last (Fan et al. 2018, arXiv 1805.04833). 0 is off.
    - top_p: the smallest set with at least this mass (Holtzman et al. 2019, arXiv 1904.09751). 1 is off.
    - min_p: at least this share of the top probability (Nguyen et al. 2024, arXiv 2407.01082). 0 is off.
    - typical_p: surprisal nearest the entropy, up to this mass (Meister et al. 2022,
      arXiv 2202.00666). 1 is off.
    - epsilon_cutoff, eta_cutoff: at least this probability, absolute or scaled by the entropy
      (Hewitt et al. 2022, arXiv 2210.15191). 0 is off.

    `seed` is an integer in [0, 2**32), or None to draw one. `stop` holds strings at which the text ends.

    Raises:
        UsageError: a value is out of its range.
    """

    max_new_tokens: int = 40
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    top_nsigma: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in (*_NUMBERS, *_INTEGERS, "stop", "seed"):
            object.__setattr__(self, name, check_value(name, getattr(self, name)))

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken every time (temperature 0)."""
        return self.temperature == 0

    def as_dict(self) -> dict[str, Any]:
        """Every value by its name, `stop` as a list and `greedy` spelt out."""
        return {**vars(self), "stop": list(self.stop), "greedy": self.greedy}


# The stages in the order in which they apply: transformers', and top_nsigma where a processor of one's
# own runs there.
ORDER = (
    "repetition_penalty",
    "no_repeat_ngram_size",
    "top_nsigma",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
WITH_HISTORY = frozenset(("repetition_penalty", "no_repeat_ngram_size"))  # run under greedy too
RESCORING = frozenset(("repetition_penalty", "temperature"))  # give new scores; the others filter


def stage_order(params: SamplingParams, temperature: float | None = None) -> tuple[str, ...]:
    """The names of the active stages, in the order in which they apply; `temperature`, where it is
    given, stands in place of that of `params`.

    A stage at its neutral value is left out. Greedy decoding keeps the stages that look at the history
    and then takes the highest score: temperature and filters do nothing.
    """
    values = vars(params) | ({} if temperature is None else {"temperature": temperature})
    active = tuple(name for name in ORDER if values[name] != getattr(SamplingParams, name))
    if values["temperature"] == 0:
        return (*(name for name in active if name in WITH_HISTORY), "greedy")
    return active


def ignored_under_greedy(params: SamplingParams) -> tuple[str, ...]:
    """Filters that are set but do nothing because decoding is greedy."""
    active = stage_order(params, temperature=1.0) if params.greedy else ()
    return tuple(name for name in active if name not in WITH_HISTORY)


@dataclass(frozen=True)
class ChatParams:
    """How a prompt goes through the chat template: as the user's message.

    system: the system message before it. allow_special: whether special tokens spelt in a message are
    read as such.
    """

    system: str | None = None
    allow_special: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The options that say so, those at their default left out."""
        system = {} if self.system is None else {"system": self.system}
        return {"chat": True, **system, **({"allow_special": True} if self.allow_special else {})}


@dataclass(frozen=True)
class OutputParams:
    """What a command shows of a run, and how the prompt is read."""

    num_samples: int = 1
    candidates: int = 10
    bos: bool | None = None
    chat: bool = False
    system: str | None = None
    allow_special: bool = False
    format: str = "text"
    tables: str | None = None  # full on a terminal, none off it
    trace: str | None = None
    save_logits: str | None = None
    delay: float = 0.0
    pause: bool = False
    quiet: bool = False  # without tables, unless they are asked for as well
    color: str = "auto"
    verbose: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.delay < math.inf:
            wanted = f"a number of seconds of at least 0, got {self.delay:g}"
            raise _bad_value("delay", wanted, "0.5 is a usual choice")
        check_positive("num_samples", self.num_samples, "5 is a usual choice")
        check_positive("candidates", self.candidates, "10 is the default")
        check_choice("tables", self.tables, (None, *TABLES))
        check_choice("color", self.color, COLORS)
        if self.save_logits is not None and not self.save_logits.endswith(".npy"):
            raise UsageError(
                f"--save-logits must name a .npy file, got {self.save_logits}",
                "numpy's format is the only one; for example logits.npy",
                "save_logits",
            )

    @property
    def chat_params(self) -> ChatParams | None:
        """How the prompt goes through the chat template; None where it does not."""
        return chat_params(vars(self))


def chat_params(values: Mapping[str, Any]) -> ChatParams | None:
    """What the values of `chat`, `system` and `allow_special` ask for; a system message asks for the
    template too.

    Raises:
        UsageError: `allow_special` without a template, which is for its messages.
    """
    system, allow_special = values.get("system"), bool(values.get("allow_special"))
    if values.get("chat") or system is not None:
        return ChatParams(system, allow_special)
    if allow_special:
        hint = "without it, special tokens are always read as such"
        raise UsageError("--allow-special goes with --chat", hint)
    return None


def check_chat_and_bos(chat: ChatParams | None, bos: Any) -> None:
    """`UsageError` where a chat template and special tokens around it were asked for."""
    if chat is not None and bos is not None:
        hint = "the template has its special tokens itself"
        raise UsageError("--chat goes with no --bos or --no-bos", hint)


@dataclass(frozen=True)
class SweepParams:
    """How a sweep is run, and what is kept of it."""

    batch_size: int = 16
    exact: bool = False
    traces: bool = False
    engine: str = "local"
    address: str | None = None
    actors: int | None = None
    plots: bool = True
    out: str | None = None
    show: bool = False

    def __post_init__(self) -> None:
        check_positive("batch_size", self.batch_size, "16 is the default")
        check_choice("engine", self.engine, ("local", "ray"))
        if self.actors is not None:
            check_positive("actors", self.actors, "leave it out for one a GPU")


# name → (lowest, lowest allowed?, highest, highest allowed?, the hint)
_NUMBERS: dict[str, tuple[float, bool, float, bool, str]] = {
    "temperature": (0, True, math.inf, False, "0 is greedy, 1 the model's own distribution"),
    "top_p": (0, False, 1, True, "1.0 keeps everything; 0.9 is a usual choice"),
    "min_p": (0, True, 1, True, "0 keeps everything; 0.05 is a usual choice"),
    "typical_p": (0, False, 1, True, "1.0 keeps everything; 0.95 is a usual choice"),
    "epsilon_cutoff": (0, True, 1, False, "0 keeps everything; 3e-4 is a usual choice"),
    "eta_cutoff": (0, True, 1, False, "0 keeps everything; 3e-4 is a usual choice"),
    "top_nsigma": (0, True, math.inf, False, "0 keeps everything; 1.0 is a usual choice"),
    "repetition_penalty": (0, False, math.inf, False, "1.0 is off; 1.1 to 1.3 are usual choices"),
}
# name → (lowest, the hint)
_INTEGERS: dict[str, tuple[int, str]] = {
    "max_new_tokens": (1, "it is how many tokens to generate; 40 is the default"),
    "top_k": (0, "0 keeps everything; 40 is a usual choice"),
    "no_repeat_ngram_size": (0, "0 is off; 3 forbids repeating any three tokens"),
}


def flag_name(name: str) -> str:
    """The option's spelling on the command line."""
    return "--" + name.replace("_", "-")


def check_value(name: str, value: Any) -> Any:
    """A value of `SamplingParams` as the field `name` holds it, else `UsageError` with its range."""
    if name == "seed":
        return None if value is None else check_seed(value)
    if name in _INTEGERS:
        lowest, hint = _INTEGERS[name]
        return check_positive(name, value, hint, lowest)
    if name == "stop":
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
            raise _bad_value("stop", f"strings, got {value!r}", "give the string to stop at")
        if not all(texts):
            hint = "give the string to stop at, or leave it out"
            raise UsageError("--stop must not be empty", hint, "stop")
        return tuple(texts)
    low, low_in, high, high_in, hint = _NUMBERS[name]
    try:
        if isinstance(value, bool | str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _bad_value(name, f"a number, got {value!r}", hint) from None
    above = number >= low if low_in else number > low
    below = number <= high if high_in else number < high
    if above and below:  # false for nan too
        return number
    if high == math.inf:
        wanted = "a finite number of at least 0" if low_in else "a finite number above 0"
    else:
        wanted = f"in {'(['[low_in]}{low:g}, {high:g}{')]'[high_in]}"
    raise _bad_value(name, f"{wanted}, got {number:g}", hint)


def check_seed(seed: Any) -> int:
    """`seed` as an integer in [0, 2**32), else `UsageError`."""
    value = _integer("seed", seed, "it is an integer from 0 to 4294967295")
    if not 0 <= value < SEED_LIMIT:
        raise _bad_value("seed", f"in [0, 4294967295], got {value}", "any integer there will do")
    return value


def check_positive(name: str, value: Any, hint: str, lowest: int = 1) -> int:
    """`value` as an integer of at least `lowest`, else `UsageError`."""
    number = _integer(name, value, hint)
    if number < lowest:
        raise _bad_value(name, f"at least {lowest}, got {number}", hint)
    return number


def check_choice(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    """`UsageError` unless `value` is one of `allowed`."""
    if value not in allowed:
        names = ", ".join(choice for choice in allowed if choice)
        raise _bad_value(name, f"one of {names}; got {value}", "see --help")


def _integer(name: str, value: Any, hint: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise _bad_value(name, f"an integer, got {value!r}", hint)
    return int(value)


def _bad_value(name: str, wanted: str, hint: str) -> UsageError:
    return UsageError(f"{flag_name(name)} must be {wanted}", hint, name)
