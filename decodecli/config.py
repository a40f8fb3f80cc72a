"""Where every value comes from: flag > environment > --config > --preset > user file > default.

Keys are the options' names with underscores, in flat TOML; the environment spells them
`DECODECLI_TOP_P`. The source of every effective value is kept. `greedy` is another way to write
`temperature = 0` and counts as a value of `temperature`. A sweep's grid file is a layer between the
environment and --config.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from decodecli.errors import UsageError
from decodecli.ranges import LISTS, flag_name
from decodecli.settings import BeamParams, LoadParams, OutputParams, SamplingParams, SweepParams
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


_OWNERS = (LoadParams, SamplingParams, OutputParams, BeamParams)
_OF_SWEEPS = {item.name for item in fields(SweepParams)}


def _kind(annotation: Any) -> str:
    kind = str(annotation).removesuffix(" | None")
    return "list" if kind.startswith("tuple") else kind


# Every key a file or the environment may set, and its kind: int, float, str, bool or list.
KEYS: dict[str, str] = {"greedy": "bool", "preset": "str", "config": "str"} | {
    item.name: _kind(item.type) for owner in (*_OWNERS, SweepParams) for item in fields(owner)
}


def _switch(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ValueError
    return text.lower() in TRUE


# By kind: what reads it from an environment variable and what that must be, what it is in a TOML file and
# what that must be.
_KINDS: dict[str, tuple[Callable[[str], Any], str, Any, str]] = {
    "int": (int, "an integer", int, "an integer"),
    "float": (float, "a number", int | float, "a number"),
    "bool": (_switch, "1 or 0", bool, "true or false"),
    "str": (str, "", str, "a string"),
    "list": (lambda text: (text,), "", list, "a string or a list of strings"),
}


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

    def beams(self) -> BeamParams:
        """The values that say whether and how beams are searched."""
        return self._build(BeamParams)

    def sweep(self) -> SweepParams:
        """The values that say how to run a sweep; for `resolve(…, expressions=True)`."""
        return self._build(SweepParams)

    def _build(self, owner: type) -> Any:
        try:
            return owner(**{item.name: self.values[item.name] for item in fields(owner)})
        except UsageError as error:
            source = self.sources.get(error.option, "default")
            raise from_source(error, error.option, source) from None


def from_source(error: UsageError, name: str, source: str) -> UsageError:
    """The error about an option's value, with where the value came from unless it was typed."""
    if source in ("flag", "default"):
        return error
    origin = f"{ENVIRONMENT}{name.upper()}" if source == "env" else f"the {source} file"
    return UsageError(f"{error.message} (from {origin})", error.hint, error.option)


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
            variables are then left as they were written, for `sweeps.grid.plan`, and `seeds` counts as
            `seed`.

    Raises:
        UsageError: an unknown key or preset, a value of the wrong kind, a file that is not there.
    """
    environ = os.environ if environ is None else environ
    typed = {name: value for name, value in flags.items() if value is not None}
    from_env, notices = _from_environment(environ, expressions)
    user_file = user_config_path()
    user = read_toml(user_file, user_file.name, trusted=True) if user_file.is_file() else {}
    first = [("flag", typed), ("env", from_env)]
    config_name = _first(first, "config")
    config = read_toml(config_name, f"--config {config_name}") if config_name else {}
    for _, layer in first if expressions else ():
        if "seeds" in layer and "seed" in layer:
            hint = "leave one out"
            raise UsageError("--seed and --seeds are one axis, and both were given", hint)
        if "seeds" in layer:
            layer["seed"] = layer.pop("seeds")
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
            number = isinstance(temperature, int | float)
            flag = f"--temperature {temperature:g}" if number else f"--temperature {temperature}"
            problem = f"--greedy and {flag} contradict each other{where}"
            raise UsageError(problem, "greedy is temperature 0: give one of them")
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
    as_written = {item.name for item in fields(SamplingParams)} - set(LISTS) | {"bos", "seeds"}
    values: dict[str, Any] = {}
    notices: list[str] = []
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT) or variable in _NOT_OPTIONS:
            continue
        name = variable.removeprefix(ENVIRONMENT).lower()
        literal = expressions and name in as_written
        if name not in KEYS and not literal:
            near = nearest(name, KEYS)
            hint = f"; did you mean {ENVIRONMENT}{near.upper()}?" if near else ""
            notices.append(f"the environment's {variable} is no option of decodecli{hint}")
        elif text:
            read, wanted, *_ = _KINDS["str" if literal else KEYS[name]]
            try:
                values[name] = read(text)
            except ValueError:
                problem = f"{variable} must be {wanted}, got {text!r}"
                raise UsageError(problem, f"unset {variable}") from None
    return values, tuple(notices)


_NOT_WHAT_IF = ("max_new_tokens", "stop", "constraint")  # are of a whole text


def what_if(params: SamplingParams, wanted: str | Mapping[str, Any]) -> tuple[str, SamplingParams]:
    """Settings with some of them changed, and the words for it: `temperature=0.2,top_p=0.5`.

    Raises:
        UsageError: an unknown name (the nearest is named), or a value out of range.
    """
    hint = "write it like temperature=0.2,top_p=0.9"
    if isinstance(wanted, str):
        pairs = [part.partition("=") for part in wanted.split(",")]
        if not all(sign for _, sign, _ in pairs):
            raise UsageError(f"--what-if {wanted!r} is not NAME=VALUE", hint)
        wanted = {name.strip(): text.strip() for name, _, text in pairs}
    known = [item.name for item in fields(SamplingParams) if item.name not in _NOT_WHAT_IF]
    changes: dict[str, Any] = {}
    for spelt, value in wanted.items():
        name = spelt.replace("-", "_")
        if name not in (*known, "greedy"):
            near = nearest(name, [*known, "greedy"])
            problem = f"--what-if knows no setting {spelt!r}"
            raise UsageError(problem, f"did you mean {near}?" if near else hint)
        read, kind, *_ = _KINDS[KEYS[name]]
        try:
            changes[name] = read(value) if isinstance(value, str) else value
        except ValueError:
            raise UsageError(f"--what-if: {spelt} must be {kind}, got {value!r}", hint) from None
    if changes.pop("greedy", False):
        if changes.get("temperature", 0) != 0:
            raise UsageError(
                "--what-if: greedy and a temperature contradict each other", "give one of them"
            )
        changes["temperature"] = 0.0
    words = ",".join(f"{name}={value}" for name, value in wanted.items())
    try:
        return words, replace(params, **changes)
    except UsageError as error:
        raise UsageError(f"--what-if {words}: {error.message}", error.hint) from None


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
    table = parse_toml(read_file(path, name), name, "write lines like top_p = 0.9")
    if not trusted:
        check_trust(table, name)
    known = {*KEYS, *also} - {"config"}
    for key in table:
        if key not in known:
            spelt = key.replace("-", "_")
            near = spelt if spelt in known else nearest(spelt, sorted(known))
            hint = "keys are the options' names with underscores"
            hint = f"did you mean {near}?" if near else hint
            raise UsageError(f"{name} has an unknown key: {key}", hint)
    values: dict[str, Any] = {}
    for key, value in table.items():
        kind = "" if key in also else KEYS[key]
        items = [value] if kind == "list" and isinstance(value, str) else value
        if kind:
            *_, types, wanted = _KINDS[kind]
            fits = isinstance(items, types) and (kind == "bool" or not isinstance(items, bool))
            if not fits or (kind == "list" and not all(isinstance(item, str) for item in items)):
                problem = f"{key} in {name} must be {wanted}, got {value!r}"
                raise UsageError(problem, "see --help")
        values[key] = tuple(items) if kind == "list" else items
    return values


def nearest(name: str, known: Any) -> str | None:
    """The known name that is most like this one, None where none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


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
    names = {path.stem for path in (configs_folder() / "presets").glob("*.toml")}
    usual = ["greedy", "precise", "balanced", "creative", "chaotic"]
    return [name for name in usual if name in names] + sorted(names.difference(usual))


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
