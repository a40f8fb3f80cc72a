"""Where every value comes from: flag > environment > --config > --preset > user file > default.

Keys are the options' names with underscores, in flat TOML; the environment spells them
`DECODECLI_TOP_P`. The source of every effective value is kept. `greedy` is another way to write
`temperature = 0` and counts as a value of `temperature`. A sweep's grid file is a layer between the
environment and --config.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from decodecli.errors import UsageError
from decodecli.settings import (
    COLORS,
    TABLES,
    ChatParams,
    LoadParams,
    SamplingParams,
    check_choice,
    check_positive,
    flag_name,
)
from decodecli.text_files import parse_toml, read_file

ENVIRONMENT = "DECODECLI_"
LAYERS = ("flag", "env", "grid", "config", "preset", "user", "default")
_NOT_OPTIONS = {"DECODECLI_DEBUG", "DECODECLI_CACHE"}
# What lets somebody else's code run is the user's word: flag, environment or own file, none that travels
# with data. By option: what the user vouches for.
TRUST = {
    "trust_remote_code": "you trust the model",
    "allow_pickle": "you trust the model",
    "address": "the cluster is yours",
}
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


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
            raise UsageError(
                f"--delay must be a number of seconds of at least 0, got {self.delay:g}",
                "0.5 is a usual choice",
            )
        check_positive("num_samples", self.num_samples, "5 is a usual choice")
        check_positive("candidates", self.candidates, "10 is the default")
        check_choice("tables", self.tables, (None, *TABLES))
        check_choice("color", self.color, COLORS)
        if self.save_logits is not None and not self.save_logits.endswith(".npy"):
            raise UsageError(
                f"--save-logits must name a .npy file, got {self.save_logits}",
                "numpy's format is the only one; for example logits.npy",
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
        raise UsageError(
            "--allow-special goes with --chat", "without it, special tokens are always read as such"
        )
    return None


def check_chat_and_bos(chat: ChatParams | None, bos: Any) -> None:
    """`UsageError` where a chat template and special tokens around it were asked for."""
    if chat is not None and bos is not None:
        raise UsageError(
            "--chat goes with no --bos or --no-bos", "the template has its special tokens itself"
        )


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


_OWNERS = (LoadParams, SamplingParams, OutputParams)
_OF_SWEEPS = {item.name for item in fields(SweepParams)}


def _kinds() -> dict[str, str]:
    found: dict[str, str] = {"greedy": "bool", "preset": "str", "config": "str"}
    for owner in (*_OWNERS, SweepParams):
        for item in fields(owner):
            kind = str(item.type).removesuffix(" | None")
            found[item.name] = "list" if kind.startswith("tuple") else kind
    return found


# Every key a file or the environment may set, and its kind: int, float, str, bool or list.
KEYS: dict[str, str] = _kinds()


@dataclass(frozen=True)
class Effective:
    """Every value with its source: flag, env, config, preset, user or default."""

    values: dict[str, Any]
    sources: dict[str, str]
    notices: tuple[str, ...] = field(default=())

    def load(self) -> LoadParams:
        """The values that say which model; raises UsageError for one out of range."""
        return self._build(LoadParams)

    def sampling(self) -> SamplingParams:
        """The values that say how to decode; raises UsageError for one out of range."""
        return self._build(SamplingParams)

    def output(self) -> OutputParams:
        """The values that say what to show. Of `quiet` and `tables` the one that was said nearer to the
        command counts; said in one place, both do."""
        output: OutputParams = self._build(OutputParams)
        said = [LAYERS.index(self.sources[name]) for name in ("quiet", "tables")]
        return replace(output, tables=None) if output.quiet and said[0] < said[1] else output

    def sweep(self) -> SweepParams:
        """The values that say how to run a sweep; for `resolve(…, expressions=True)`."""
        return self._build(SweepParams)

    def _build(self, owner: type) -> Any:
        own = {item.name: self.values[item.name] for item in fields(owner)}
        try:
            return owner(**own)
        except UsageError as error:
            for name, source in self.sources.items():
                if error.message.startswith(flag_name(name) + " "):
                    raise from_source(error, name, source) from None
            raise


def from_source(error: UsageError, name: str, source: str) -> UsageError:
    """The error about an option's value, with where the value came from unless it was typed."""
    if source in ("flag", "default"):
        return error
    origin = f"{ENVIRONMENT}{name.upper()}" if source == "env" else f"the {source} file"
    return UsageError(f"{error.message} (from {origin})", error.hint)


def resolve(
    flags: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    *,
    grid: Mapping[str, Any] | None = None,
    expressions: bool = False,
) -> Effective:
    """Merge the layers. A flag of None was not given.

    Args:
        grid: a sweep's grid file, a layer below the environment; its source is called "grid".
        expressions: whether decoding values may be lists and expressions such as "0.2,0.7": flags and
            variables are then left as they were written, for `sweep.grid.plan`, and `seeds` counts as
            `seed`.

    Raises:
        UsageError: an unknown key or preset, a value of the wrong kind, a file that is not there.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in flags.items() if value is not None}
    from_env, notices = _from_environment(environ, expressions)
    user_file = user_config_path()
    user = read_toml(user_file, user_file.name, trusted=True) if user_file.is_file() else {}
    first = [("flag", given), ("env", from_env)]
    config_name = _first(first, "config")
    config = read_toml(config_name, f"--config {config_name}") if config_name else {}
    if expressions:
        first = [(source, _with_one_seed(layer)) for source, layer in first]
    files = [*first, ("grid", dict(grid or {})), ("config", config)]
    preset_name = _first([*files, ("user", user)], "preset")
    preset = read_preset(preset_name) if preset_name else {}
    preset = {name: value for name, value in preset.items() if name != "description"}
    layers = [*files, ("preset", preset), ("user", user)]

    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    apart = {"greedy", "temperature"} | (set() if expressions else _OF_SWEEPS)
    for source, layer in reversed(layers):
        for name, value in layer.items():
            if name not in apart:
                values[name], sources[name] = value, source
    temperature = temperature_of(layers)
    if temperature is not None:
        values["temperature"], sources["temperature"] = temperature
    for owner in (*_OWNERS, SweepParams) if expressions else _OWNERS:
        for item in fields(owner):
            if item.name not in values:
                values[item.name], sources[item.name] = item.default, "default"
    return Effective(values, sources, notices)


def _with_one_seed(layer: dict[str, Any]) -> dict[str, Any]:
    """The layer with `seeds`, which is another name of `seed`, called that."""
    if "seeds" not in layer:
        return layer
    if "seed" in layer:
        raise UsageError("--seed and --seeds are one axis, and both were given", "leave one out")
    return {"seed" if name == "seeds" else name: value for name, value in layer.items()}


def _first(layers: Sequence[tuple[str, Mapping[str, Any]]], name: str) -> Any:
    return next((layer[name] for _, layer in layers if layer.get(name)), None)


def temperature_of(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[float, str] | None:
    """The effective temperature and its source: `greedy` is another way to write 0, and a false
    `greedy` takes back a true one of a lower layer."""
    taken_back = False
    for source, layer in layers:
        greedy, temperature = layer.get("greedy"), layer.get("temperature")
        if greedy and temperature is not None and not _is_zero(temperature):
            where = "" if source == "flag" else f" in the {source} layer"
            shown = f"{temperature:g}" if isinstance(temperature, int | float) else temperature
            raise UsageError(
                f"--greedy and --temperature {shown} contradict each other{where}",
                "greedy is temperature 0: give one of them",
            )
        if greedy and not taken_back:
            return 0.0, source
        if temperature is not None:
            return temperature, source
        taken_back = taken_back or greedy is False
    return None


def _is_zero(temperature: Any) -> bool:
    """Whether it is 0, be it a number, an expression or an axis of one value."""
    values = temperature if isinstance(temperature, list | tuple) else [temperature]
    try:
        return all(value == "greedy" or float(value) == 0 for value in values)
    except (TypeError, ValueError):
        return False


def _from_environment(
    environ: Mapping[str, str], expressions: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    as_written = {item.name for item in fields(SamplingParams)} - {"stop"} | {"bos", "seeds"}
    found: dict[str, Any] = {}
    notices: list[str] = []
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT) or variable in _NOT_OPTIONS:
            continue
        name = variable.removeprefix(ENVIRONMENT).lower()
        if expressions and name in as_written:
            found |= {name: text} if text else {}
        elif name not in KEYS:
            near = nearest(name, KEYS)
            hint = f"; did you mean {ENVIRONMENT}{near.upper()}?" if near else ""
            notices.append(f"the environment's {variable} is no option of decodecli{hint}")
        elif text:
            found[name] = _parse(name, text, variable)
    return found, tuple(notices)


def _parse(name: str, text: str, variable: str) -> Any:
    kind = KEYS[name]
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        wanted = "an integer" if kind == "int" else "a number"
        raise UsageError(
            f"{variable} must be {wanted}, got {text!r}", f"unset {variable}"
        ) from None
    if kind == "bool":
        if text.lower() not in TRUE + FALSE:
            raise UsageError(f"{variable} must be 1 or 0, got {text!r}", f"unset {variable}")
        return text.lower() in TRUE
    return (text,) if kind == "list" else text


def check_trust(keys: Iterable[str], name: str) -> None:
    """Raise UsageError where a file that travels with data asks for trust in a model or a cluster."""
    for key, vouched in TRUST.items():
        if key in keys:
            raise UsageError(
                f"{name} sets {key}, which only you can",
                f"take that line out; if {vouched}, add {flag_name(key)}",
            )


def read_toml(
    path: str | Path, name: str, also: tuple[str, ...] = (), *, trusted: bool = False
) -> dict[str, Any]:
    """A flat TOML file of options, checked for unknown keys and kinds.

    Args:
        also: further keys, passed on as they are. trusted: whether the file may set `TRUST`.

    Raises:
        UsageError: it cannot be read, is no TOML, has an unknown key (the nearest is named), or one of
            `TRUST`.
    """
    found = parse_toml(read_file(path, name), name, "write lines like top_p = 0.9")
    if not trusted:
        check_trust(found, name)
    values: dict[str, Any] = {}
    for key, value in found.items():
        if key in also:
            values[key] = value
            continue
        if key not in KEYS or key == "config":
            raise _unknown_key(key, name, {*KEYS, *also} - {"config"})
        values[key] = _checked(key, value, name)
    return values


def _unknown_key(key: str, name: str, known: set[str]) -> UsageError:
    spelt = key.replace("-", "_")
    near = spelt if spelt in known else nearest(spelt, sorted(known))
    hint = f"did you mean {near}?" if near else "keys are the options' names with underscores"
    return UsageError(f"{name} has an unknown key: {key}", hint)


def _checked(key: str, value: Any, name: str) -> Any:
    kind = KEYS[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "list":
        value = [value] if isinstance(value, str) else value
        fits, wanted = (
            isinstance(value, list) and all(isinstance(item, str) for item in value),
            "a string or a list of strings",
        )
        value = tuple(value) if fits else value
    elif kind == "bool":
        fits, wanted = isinstance(value, bool), "true or false"
    elif kind == "int":
        fits, wanted = number and isinstance(value, int), "an integer"
    elif kind == "float":
        fits, wanted = number, "a number"
    else:
        fits, wanted = isinstance(value, str), "a string"
    if not fits:
        raise UsageError(f"{key} in {name} must be {wanted}, got {value!r}", "see --help")
    return value


def nearest(name: str, known: Any) -> str | None:
    """The known name that is most like this one, None where none is."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def user_config_path() -> Path:
    """The user's own file of options; it need not exist."""
    import platformdirs

    return Path(platformdirs.user_config_dir("decodecli", appauthor=False)) / "config.toml"


def configs_folder() -> Path:
    """The folder of shipped presets, sweeps and models: in the package, or beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def preset_names() -> list[str]:
    """The shipped presets, mildest first."""
    found = {path.stem for path in (configs_folder() / "presets").glob("*.toml")}
    usual = ["greedy", "precise", "balanced", "creative", "chaotic"]
    return [name for name in usual if name in found] + sorted(found.difference(usual))


def read_preset(name: str) -> dict[str, Any]:
    """A shipped preset's values, its `description` among them.

    Raises:
        UsageError: there is no such preset (the nearest is named).
    """
    names = preset_names()
    if name not in names:
        near = nearest(name, names)
        hint = f"did you mean {near}? " if near else ""
        raise UsageError(f"there is no preset {name!r}", f"{hint}presets are: {', '.join(names)}")
    path = configs_folder() / "presets" / f"{name}.toml"
    return read_toml(path, path.name, also=("description",))
