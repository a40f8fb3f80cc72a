"""Reading the files of a model's folder, which may be broken or hostile: every failure is a line.

config.json and generation_config.json are checked for values on which libraries hang, take all the
memory, or compute nonsense without a word; everything else is for transformers to refuse. No torch and
no transformers: `models fit`, `tokenize` and the cache of quantized weights read through here too.
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decodecli.errors import DecodecliError, LoadError, PickledWeightsError

LARGEST_JSON = 2**28  # bytes; the largest tokenizer.json and index are a tenth of it
NUMBER_BYTES = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U8": 1,
    "I8": 1,
}
_MOST_PARAMETERS = 2**53  # of one tensor, more than there is memory in the world
_MOST_DIMENSIONS = 64
SPECIAL_TOKENS = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
# Modules or names that transformers makes one by one.
_COUNTS = re.compile(r"(num|n)_.*(layers?|experts|blocks|stages|groups|heads|labels)|depth")
_LAYERS = re.compile(r"(num|n)_(hidden_|decoder_)?layers?")
_MOST_MODULES = 10_000  # of any kind; the largest models have some hundreds of layers and experts
# Where a value of another type than these makes transformers stumble without a word on the key.
_JSON_FILES = (
    "config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json",
)  # fmt: skip
_JSON_TYPES: dict[str, tuple[Any, str]] = {
    "an object": (
        dict,
        "added_tokens_decoder id2label label2id per_layer_config quantization_config "
        "rope_parameters rope_scaling text_config watermarking_config",
    ),
    "a list": (list, "architectures layer_types model_input_names suppress_tokens"),
    "a list or an object": (
        list | dict,
        "additional_special_tokens auto_map extra_special_tokens",
    ),
    "a text": (str, "attn_implementation hidden_act model_type rope_type tokenizer_class"),
    "a text or an object": (str | dict, " ".join(("dtype", "torch_dtype", *SPECIAL_TOKENS))),
    "a text or a list": (str | list, "chat_template"),
    "a number": (
        int | float,
        "assistant_ensemble_weight attention_chunk_size attention_dropout head_dim hidden_size "
        "intermediate_size max_new_tokens max_position_embeddings model_max_length "
        "num_attention_heads num_hidden_layers num_key_value_heads num_labels "
        "num_return_sequences pretraining_tp rms_norm_eps rope_theta sliding_window vocab_size",
    ),
    "true or false": (bool, "is_causal output_attentions output_hidden_states"),
}
_BY_NUMBER = ("added_tokens_decoder", "id2label", "per_layer_config")  # objects with such keys
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its kind when it says nothing."""
    if type(error).__module__ == "huggingface_hub.errors" and error.__cause__:
        error = (
            error.__cause__
        )  # of a dataclass that is checked: its first line names only the field
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def reason(error: BaseException, folder: Path | None) -> str:
    """What a library says of a model's files in a line; where it stumbled in Python's own words over
    a value in the folder's files, the file, the key and the value."""
    stumbled = isinstance(error, AttributeError | TypeError | LookupError | NameError)
    refused = _is_checked_field(error) or type(error) is ValueError  # perhaps of `int`
    if folder is None or not (stumbled or refused):
        return first_line(error)
    word = error.args[0] if isinstance(error, KeyError) else getattr(error, "name", None)
    for name in _JSON_FILES:
        parts: list[dict[str, Any]] = []
        with contextlib.suppress(LoadError):
            parts.append(read_json(folder / name))
        for part in parts:  # which grows meanwhile
            parts += [value for value in part.values() if isinstance(value, dict)]
            for key, value in part.items():
                for expected, (types, keys) in _JSON_TYPES.items():
                    if key in keys.split() and not isinstance(value, types | None):
                        return f"{name} says {key} = {_short(value)}, not {expected}"
                numbers = value if key in _BY_NUMBER and value else ()
                if wrong := [number for number in numbers if not number.isdecimal()]:
                    return f"{name} says {key} has {_short(wrong[0])}, not a number"
                if isinstance(value, str) and value == word:
                    return f"{name} says {key} = {_short(value)}, which transformers does not know"
    if stumbled:
        return "a value in its files is not of the kind that transformers expects"
    return first_line(error)


def _is_checked_field(error: BaseException) -> bool:
    """Whether a field of transformers' configuration classes refused its value."""
    return type(error).__module__ == "huggingface_hub.errors"


@contextlib.contextmanager
def blamed_on(
    what: str,
    hint: str = "copy the original model's files into the folder",
    folder: Path | None = None,
) -> Iterator[None]:
    """The boundary around libraries that read a model's files: whatever they raise says that `what`
    cannot be used. Errors of our own, which say it better, pass.

    Rust panics (pyo3's PanicException) are no Exceptions, so what is let through is listed instead.

    Raises:
        LoadError: in place of what was raised.
    """
    try:
        yield
    except (DecodecliError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except RecursionError as error:
        raise LoadError(f"{what} cannot be used: it is nested too deep", hint) from error
    except BaseException as error:
        raise LoadError(f"{what} cannot be used: {reason(error, folder)}", hint) from error


def check_regular(folder: Path) -> None:
    """Refuse a folder with a pipe, socket or device in it, on which a library that reads would hang.

    Raises:
        LoadError: there is one, or the folder cannot be listed.
    """
    try:
        for path in folder.iterdir():
            with contextlib.suppress(
                FileNotFoundError
            ):  # a link to nothing is as good as not there
                mode = path.stat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise LoadError(f"{path} is not a regular file", "remove it from the folder")
    except OSError as error:
        raise LoadError(
            f"{folder} cannot be read: {error.strerror}", "check its permissions"
        ) from error


def read_json(path: Path, hint: str = "copy the original model's file") -> dict[str, Any]:
    """The JSON object in a file of a model.

    Raises:
        LoadError: it is no regular file, too large, nested too deep, no JSON or no object.
    """
    if path.exists() and not path.is_file():
        raise LoadError(f"{path} is not a regular file", hint)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise LoadError(f"{path} is larger than {LARGEST_JSON:,} bytes", hint)
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise LoadError(f"{path} is nested too deep", hint) from error
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or first_line(error)
        raise LoadError(f"{path} cannot be read: {problem}", hint) from error
    if not isinstance(content, dict):
        raise LoadError(f"{path} is not a JSON object", hint)
    return content


def safetensors_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: tensor name → dtype, shape, data_offsets,
    parameters (how many) and start (the byte of the file).

    (`safetensors.safe_open` does not tell the offsets, which reading without torch needs.)

    Raises:
        LoadError: the file is cut short or is no safetensors file.
    """
    if path.exists() and not path.is_file():
        raise LoadError(f"{path} is not a regular file", "download it again")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, LARGEST_JSON):
                raise ValueError
            header = json.loads(file.read(length))
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        end = 0
        for tensor in tensors.values():
            low, high = map(operator.index, tensor["data_offsets"])
            shape = [operator.index(length) for length in tensor["shape"][: _MOST_DIMENSIONS + 1]]
            if len(shape) > _MOST_DIMENSIONS or not all(0 <= n <= _MOST_PARAMETERS for n in shape):
                raise ValueError
            tensor["parameters"] = math.prod(shape)
            needed = tensor["parameters"] * NUMBER_BYTES.get(tensor["dtype"], 0) or high - low
            if tensor["parameters"] > _MOST_PARAMETERS or not 0 <= low <= high == low + needed:
                raise ValueError
            tensor["start"] = 8 + length + low
            end = max(end, high)
    except OSError as error:
        raise LoadError(
            f"{path} cannot be read: {error.strerror}", "check its permissions"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise LoadError(
            f"{path} is not a safetensors file, or its header is cut short", "download it again"
        ) from error
    if 8 + length + end > size:
        raise LoadError(
            f"{path} is cut short: {size:,} bytes of {8 + length + end:,}", "download it again"
        )
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model: those of its index, or its one file, or all.

    Raises:
        LoadError: there are none, or the index is unreadable or names one that is not there.
    """
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        names = indexed_files(indexes[0])
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise LoadError(
            f"{folder} has no weights in safetensors", "convert them: embed reads no others"
        )
    for name in names:
        if not (folder / name).is_file():
            raise LoadError(f"{folder} lacks {name}", "is the download complete?")
    return [folder / name for name in names]


def indexed_files(index: Path) -> list[str]:
    """The names of the files that an index of weights lists.

    Raises:
        LoadError: it is no index, or names something that is no name.
    """
    weight_map = read_json(index, "download it again").get("weight_map")
    names: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
    if not all(isinstance(name, str) and name and "\0" not in name for name in names):
        raise LoadError(f"{index} is no index of weights", "download it again")
    return sorted(set(names))


def check_no_pickles(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a folder whose own files lead transformers or peft to pickled weights.

    Raises:
        LoadError: an index, config.json or an adapter names weights that are no safetensors.
    """
    named = [
        (index.name, indexed_files(index)) for index in folder.glob("*.safetensors.index.json")
    ]
    weights = config.get("transformers_weights")
    if weights is not None and not str(weights).endswith(".safetensors.index.json"):
        named.append(("config.json", [str(weights)]))
    if (folder / "adapter_config.json").is_file() and (folder / "adapter_model.bin").exists():
        named.append(("adapter_config.json", ["adapter_model.bin"]))
    for source, names in named:
        for name in names:
            if not name.endswith(".safetensors"):
                raise PickledWeightsError(
                    f"{source} of {folder} leads to {name[:80]}, pickled weights, which can run code "
                    "when they are loaded",
                    "convert them to safetensors, or add --allow-pickle if you trust their source",
                )


def check_config(config: dict[str, Any], file: Path, tensors: int | None) -> None:
    """Refuse counts that the weights cannot hold, windows that are none, ids that are none.

    Args:
        file: the config.json that it was read from.
        tensors: how many tensors the weights have; None where they are pickled and do not tell.

    Raises:
        LoadError: naming the file, the key and its value.
    """
    hint = "copy the original model's config.json into the folder"
    parts = [config]
    for part in parts:  # which grows meanwhile
        parts += [value for value in part.values() if isinstance(value, dict)]
        for key, value in part.items():
            if type(value) is not int:
                continue
            layers = bool(_LAYERS.fullmatch(key))
            most = max(tensors, 100) if layers and tensors is not None else _MOST_MODULES
            if _COUNTS.fullmatch(key) and not (1 if layers else 0) <= value <= most:
                held = f", with {tensors:,} tensors in the weights" if most != _MOST_MODULES else ""
                raise LoadError(f"{file} says {key} = {_short(value)}{held}", hint)
            if (
                key == "sliding_window"
                and value < 1
                and part.get("use_sliding_window") is not False
            ):
                raise LoadError(f"{file} says {key} = {_short(value)}", hint)
        check_ids(part, file)


def check_ids(values: dict[str, Any], file: Path) -> None:
    """Refuse token ids that are no whole numbers.

    Raises:
        LoadError: naming the file, the key and its value.
    """
    for key in _IDS:
        value = values.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(token) is int and -(2**31) <= token < 2**31 for token in ids):
            raise LoadError(
                f"{file} says {key} = {_short(value)}, not a token's id or a list of them",
                f"copy the original model's {file.name} into the folder",
            )


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**15:
        return f"{value:.1e}" if abs(value) < 10**300 else "a number of hundreds of digits"
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
