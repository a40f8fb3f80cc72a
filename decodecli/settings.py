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
from decodecli.ranges import LISTS, bad_value, check_choice, check_positive, check_value
from decodecli.stages import stage_order

BUILTIN = "builtin"
BUILTIN_PROMPT = "Once upon a time,"

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
            raise bad_value("device", wanted, "auto takes a GPU when there is one")
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

    `temperature=0` is greedy decoding. Stages, in the default `order`, which is transformers':

    - logit_bias: adds to the logits of tokens: `TOKEN=+2.5`, text of one token or an id. Or a mapping.
    - repetition_penalty: divides positive and multiplies negative logits of tokens already in the
      sequence, prompt included (Keskar et al. 2019, arXiv 1909.05858). 1 is off.
    - presence_penalty, frequency_penalty: subtracted from the logits of tokens already there, once, and
      once per occurrence (OpenAI's API). 0 is off. All three look at the last `penalty_last_n` tokens,
      −1 at all of them.
    - dry_multiplier: subtracts dry_multiplier · dry_base^(n − dry_allowed_length) from a token that
      would extend a repetition of n tokens; what is repeated lies within the last `dry_penalty_last_n`,
      and no repetition reaches across a token that holds one of `dry_sequence_breakers`
      (text-generation-webui PR 5677). 0 is off.
    - constraint: bans the tokens after which the text could no longer become what was asked for:
      `choice:yes,no`, `regex:…`, `json`, `json-schema:FILE`, `grammar:FILE` (Lark or GBNF).
    - no_repeat_ngram_size: bans the token that would complete an n-gram already there
      (Paulus et al. 2017, arXiv 1705.04304). 0 is off.
    - bad_words: texts that must not be generated: bans the token that would complete one.
    - min_new_tokens: bans the end tokens until there are so many new tokens. 0 is off.
    - top_nsigma: logits at most this many standard deviations below the highest, deviation over those
      not banned (Tang et al. 2024, arXiv 2411.07641). 0 is off. It runs before the temperature, which
      therefore does not change what it keeps.
    - dynatemp_range: the temperature goes from this much below to this much above `temperature`, by
      the entropy over its maximum, to the power of `dynatemp_exponent` (llama.cpp). 0 is off.
    - temperature: divides the logits (Ackley et al. 1985).
    - top_h: the most probable up to this share of the entropy (arXiv 2509.02510). 0 is off.
    - top_k: the k most probable, and ties with the last (Fan et al. 2018, arXiv 1805.04833). 0 is off.
    - top_p: the smallest set with at least this mass (Holtzman et al. 2019, arXiv 1904.09751). 1 is off.
    - min_p: at least this share of the top probability (Nguyen et al. 2024, arXiv 2407.01082). 0 is off.
    - typical_p: surprisal nearest the entropy, up to this mass (Meister et al. 2022,
      arXiv 2202.00666). 1 is off.
    - epsilon_cutoff, eta_cutoff: at least this probability, absolute or scaled by the entropy
      (Hewitt et al. 2022, arXiv 2210.15191). 0 is off.
    - top_a: at least this share of the top probability's square (KoboldAI). 0 is off.
    - tfs_z: tail-free: cut where the curvature of the falling probabilities sums to this share
      (trentbrick.github.io/Tail-Free-Sampling). 1 is off.
    - xtc_probability: with this probability a step excludes all tokens of at least `xtc_threshold` but
      the least probable of them (text-generation-webui PR 6335). 0 is off.
    - mirostat: 2 keeps the surprisal near `mirostat_tau` bits, learning at the rate `mirostat_eta`
      (Basu et al. 2021, arXiv 2007.14966). 0 is off.

    `order` names an engine (`stages.ORDERS`) or the stages, joined by commas.
    `seed` is an integer in [0, 2**32), or None to draw one. `stop` holds strings at which the text ends.

    Raises:
        UsageError: a value is out of its range, or the order leaves out a stage that is on.
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
    top_h: float = 0.0
    top_a: float = 0.0
    tfs_z: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = -1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    constraint: str = ""
    no_repeat_ngram_size: int = 0
    min_new_tokens: int = 0
    logit_bias: tuple[str, ...] = ()
    bad_words: tuple[str, ...] = ()
    order: str = "transformers"
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in vars(self):
            object.__setattr__(self, name, check_value(name, getattr(self, name)))
        stage_order(self)  # raises where it leaves out one

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken every time (temperature 0)."""
        return self.temperature == 0

    def as_dict(self) -> dict[str, Any]:
        """Every value by its name, texts as lists and `greedy` spelt out."""
        lists = {name: list(getattr(self, name)) for name in LISTS}
        return {**vars(self), **lists, "greedy": self.greedy}


@dataclass(frozen=True)
class BeamParams:
    """Beam search: `num_beams` texts are carried along at once, 1 is no search.

    length_penalty: a hypothesis' score is its log probability over its length to this power; above 0
    longer texts gain. early_stopping: "true" ends when there are num_beams hypotheses, "false" when no
    beam is likely to do better, "never" when none can. num_return_sequences: hypotheses to return.
    beam_sample: draw the continuations, without replacement, in place of taking the best.
    """

    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: str = "false"
    num_return_sequences: int = 1
    beam_sample: bool = False

    def __post_init__(self) -> None:
        check_positive("num_beams", self.num_beams, "4 is a usual choice")
        check_positive("num_return_sequences", self.num_return_sequences, "1 is the default")
        check_choice("early_stopping", self.early_stopping, ("false", "true", "never"))
        if not math.isfinite(self.length_penalty):
            raise bad_value("length_penalty", "a finite number", "1 is the default")
        if self.num_return_sequences > self.num_beams:
            problem = f"--num-return-sequences {self.num_return_sequences} are more than "
            problem += f"{self.num_beams} beam" + ("s" if self.num_beams > 1 else "")
            raise UsageError(problem, "ask for more beams: --num-beams", "num_return_sequences")


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
            raise bad_value("delay", wanted, "0.5 is a usual choice")
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
