"""What each value of `SamplingParams` may be: its range, and the error that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from decodecli.errors import UsageError
from decodecli.stages import parse_order

SEED_LIMIT = 2**32

# name → (lowest, lowest allowed?, highest, highest allowed?, the hint)
_NUMBERS: dict[str, tuple[float, bool, float, bool, str]] = {
    "temperature": (0, True, math.inf, False, "0 is greedy, 1 the model's own distribution"),
    "top_p": (0, False, 1, True, "1.0 keeps everything; 0.9 is a usual choice"),
    "min_p": (0, True, 1, True, "0 keeps everything; 0.05 is a usual choice"),
    "typical_p": (0, False, 1, True, "1.0 keeps everything; 0.95 is a usual choice"),
    "epsilon_cutoff": (0, True, 1, False, "0 keeps everything; 3e-4 is a usual choice"),
    "eta_cutoff": (0, True, 1, False, "0 keeps everything; 3e-4 is a usual choice"),
    "top_nsigma": (0, True, math.inf, False, "0 keeps everything; 1.0 is a usual choice"),
    "top_h": (0, True, 1, True, "0 keeps everything; 0.4 is a usual choice"),
    "top_a": (0, True, 1, True, "0 keeps everything; 0.2 is a usual choice"),
    "tfs_z": (0, False, 1, True, "1.0 keeps everything; 0.95 is a usual choice"),
    "xtc_probability": (0, True, 1, True, "0 is off; 0.5 is a usual choice"),
    "xtc_threshold": (0, False, 1, True, "0.1 is the default; above 0.5 it does nothing"),
    "mirostat_tau": (0, False, math.inf, False, "it is in bits; 5 is the default"),
    "mirostat_eta": (0, True, math.inf, False, "0.1 is the default; 0 never learns"),
    "dynatemp_range": (0, True, math.inf, False, "0 is off; 0.5 is a usual choice"),
    "dynatemp_exponent": (0, False, math.inf, False, "1 is the default"),
    "repetition_penalty": (0, False, math.inf, False, "1.0 is off; 1.1 to 1.3 are usual choices"),
    "presence_penalty": (-math.inf, False, math.inf, False, "0 is off; 0.5 is a usual choice"),
    "frequency_penalty": (-math.inf, False, math.inf, False, "0 is off; 0.5 is a usual choice"),
    "dry_multiplier": (0, True, math.inf, False, "0 is off; 0.8 is a usual choice"),
    "dry_base": (1, True, math.inf, False, "1.75 is the default"),
}
# name → (lowest, the hint)
_INTEGERS: dict[str, tuple[int, str]] = {
    "max_new_tokens": (1, "it is how many tokens to generate; 40 is the default"),
    "top_k": (0, "0 keeps everything; 40 is a usual choice"),
    "no_repeat_ngram_size": (0, "0 is off; 3 forbids repeating any three tokens"),
    "min_new_tokens": (0, "0 is off: the text may end at once"),
    "penalty_last_n": (-1, "-1 looks at all tokens, 64 at the last 64"),
    "dry_allowed_length": (1, "2 is the default: repetitions of two tokens are free"),
    "dry_penalty_last_n": (-1, "-1 looks at all tokens"),
    "mirostat": (0, "0 is off; 2 is version 2 of the paper's algorithm"),
}
# Lists of texts, and what one of them is for.
LISTS = {
    "stop": "the string to stop at",
    "logit_bias": "TOKEN=+2.5, a token's text or id and what is added to its logit",
    "bad_words": "a text that must not be generated",
    "dry_sequence_breakers": "a text that no repetition reaches across",
}


CONSTRAINTS = ("choice", "regex", "json", "json-schema", "grammar")


def flag_name(name: str) -> str:
    """The option's spelling on the command line."""
    return "--constrain" if name == "constraint" else "--" + name.replace("_", "-")


def check_value(name: str, value: Any) -> Any:
    """A value of `SamplingParams` as the field `name` holds it, else `UsageError` with its range."""
    if name == "seed":
        return None if value is None else check_seed(value)
    if name in _INTEGERS:
        lowest, hint = _INTEGERS[name]
        integer = check_positive(name, value, hint, lowest)
        if name == "mirostat" and integer not in (0, 2):
            raise bad_value(name, f"0 or 2, got {integer}", hint)
        return integer
    if name in LISTS:
        return _texts(name, value)
    if name in ("order", "constraint"):
        if not isinstance(value, str):
            raise bad_value(name, f"a string, got {value!r}", "see --help")
        _ = parse_order(value) if name == "order" else split_constraint(value)
        return value
    low, low_in, high, high_in, hint = _NUMBERS[name]
    try:
        if isinstance(value, bool | str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise bad_value(name, f"a number, got {value!r}", hint) from None
    above = number >= low if low_in else number > low
    below = number <= high if high_in else number < high
    if above and below:  # false for nan too
        return number
    if high == math.inf:
        side = f"of at least {low:g}" if low_in else f"above {low:g}"
        wanted = "a finite number" if low == -math.inf else f"a finite number {side}"
    else:
        wanted = f"in {'(['[low_in]}{low:g}, {high:g}{')]'[high_in]}"
    raise bad_value(name, f"{wanted}, got {number:g}", hint)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    hint = f"give {LISTS[name]}"
    if name == "logit_bias" and isinstance(value, Mapping):
        value = tuple(f"{token}={bias}" for token, bias in value.items())
    texts = (value,) if isinstance(value, str) else value
    if name == "dry_sequence_breakers" and texts in (("none",), ["none"]):
        return ()
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise bad_value(name, f"strings, got {value!r}", hint)
    if not all(texts):
        raise UsageError(f"{flag_name(name)} must not be empty", f"{hint}, or leave it out", name)
    for text in texts if name == "logit_bias" else ():
        split_bias(text)
    return tuple(texts)


def split_bias(text: str) -> tuple[str, float]:
    """The token and the number of a `TOKEN=+2.5`."""
    token, _, number = text.rpartition("=")
    try:
        bias = float(number)
    except ValueError:
        bias = math.nan
    if not token or not math.isfinite(bias):
        raise bad_value("logit_bias", f"TOKEN=NUMBER, got {text!r}", f"give {LISTS['logit_bias']}")
    return token, bias


def split_constraint(text: str) -> tuple[str, str]:
    """The kind of a constraint, "" where there is none, and what it says: `choice:yes,no`."""
    kind, colon, rest = text.partition(":")
    if text and (
        kind not in CONSTRAINTS or bool(colon) == (kind == "json") or (colon and not rest)
    ):
        raise bad_value(
            "constraint", f"choice:A,B, regex:…, json, json-schema:FILE or grammar:FILE; got {text!r}",
            "a regex is that of the whole text",
        )  # fmt: skip
    return kind, rest


def check_seed(seed: Any) -> int:
    """`seed` as an integer in [0, 2**32), else `UsageError`."""
    value = _integer("seed", seed, "it is an integer from 0 to 4294967295")
    if not 0 <= value < SEED_LIMIT:
        raise bad_value("seed", f"in [0, 4294967295], got {value}", "any integer there will do")
    return value


def check_positive(name: str, value: Any, hint: str, lowest: int = 1) -> int:
    """`value` as an integer of at least `lowest`, else `UsageError`."""
    number = _integer(name, value, hint)
    if number < lowest:
        raise bad_value(name, f"at least {lowest}, got {number}", hint)
    return number


def check_choice(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    """`UsageError` unless `value` is one of `allowed`."""
    if value not in allowed:
        names = ", ".join(choice for choice in allowed if choice)
        raise bad_value(name, f"one of {names}; got {value}", "see --help")


def _integer(name: str, value: Any, hint: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise bad_value(name, f"an integer, got {value!r}", hint)
    return int(value)


def bad_value(name: str, wanted: str, hint: str) -> UsageError:
    return UsageError(f"{flag_name(name)} must be {wanted}", hint, name)
