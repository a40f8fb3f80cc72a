"""`sweep.toml`: the grid of a sweep, and the model and programs that its cells come from.

It is a grid file, so that `--grid DIR/sweep.toml` gives the same cells again. Its last part, the table
`sweep`, is what this program needs to know a folder again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import os
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from decodecli.config import check_trust
from decodecli.errors import DecodecliError, UsageError
from decodecli.models.checkpoint import Checkpoint
from decodecli.settings import LoadParams
from decodecli.sweeps.folder import MANIFEST, current
from decodecli.sweeps.grid import Grid, plan, toml_lines
from decodecli.sweeps.grid_file import GridFile, read_grid

TABLE = "sweep"  # in the file: what is no part of the grid
_SAMPLE = 2**16  # bytes of each of a weight file's samples
_PACKAGES = ("torch", "transformers")
_RESTORE = "put back what the sweep wrote there, or begin again in a new folder"
_TYPES = {
    **{"exact": bool, "traces": bool, "started": datetime},
    **{"tokens_per_second": int | float, "model": dict, "versions": dict},
}
_COUNTS = ("parameters", "vocab_size")
_FASTEST = 1e12  # tokens a second
_LOAD_OPTIONS = frozenset(item.name for item in fields(LoadParams))


def versions() -> dict[str, str]:
    """The versions that a cell can depend on, found without importing anything heavy."""
    from decodecli import __version__

    numbers = {"decodecli": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            numbers[package] = importlib.metadata.version(package)
    return numbers


@dataclass(frozen=True)
class Manifest:
    """A sweep as a command asks for it.

    options: the command's options that say which model, where they are not at their default.
    model: facts about the model, as far as they are known: `name`, `revision`, `weights`, and after
        loading `parameters`, `vocab_size`, `dtype`, `device`, `quantize`.
    exact, traces: how the cells are run, and whether their steps are kept.
    started: when the first of them was. rate: tokens a second of the last run, for estimates.
    """

    grid: Grid
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False
    traces: bool = False
    versions: Mapping[str, str] = field(default_factory=versions)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    rate: float | None = None

    def as_toml(self) -> str:
        """The whole file."""
        about = {
            "fingerprint": self.grid.fingerprint,
            "cells": len(self.grid),
            "started": self.started,
            "exact": self.exact,
            "traces": self.traces,
            "tokens_per_second": self.rate,
        }
        return "\n".join(
            [
                self.grid.as_toml(self.options, ["What this sweep was asked, as a grid file."]),
                f"# From here on, what the cells are of.\n[{TABLE}]\n{toml_lines(about)}",
                f"[{TABLE}.model]\n{toml_lines(self.model)}",
                f"[{TABLE}.versions]\n{toml_lines(self.versions)}",
            ]
        )

    def resuming(self, stored: StoredManifest) -> Manifest:
        """This grid in a folder that has cells: the file goes on saying what the first were run with."""
        about = stored.about
        return replace(
            self,
            options={
                k: v for k, v in stored.values.items() if k in _LOAD_OPTIONS and isinstance(v, str)
            },
            model={**self.model, **stored.model},
            exact=self.exact and bool(about.get("exact")),
            traces=self.traces and bool(about.get("traces")),
            versions=about.get("versions", self.versions),
            started=about.get("started", self.started),
            rate=stored.rate,
        )


@dataclass(frozen=True)
class StoredManifest:
    """A `sweep.toml` as read from a folder: its grid's values, and the table of this program."""

    values: dict[str, Any]
    about: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        return str(self.about["fingerprint"])

    @property
    def model(self) -> dict[str, Any]:
        return dict(self.about.get("model", {}))

    @property
    def versions(self) -> dict[str, Any]:
        return dict(self.about.get("versions", {}))

    @property
    def rate(self) -> float | None:
        """Tokens a second of the last run that came to its end."""
        return self.about.get("tokens_per_second")


def read_manifest_grid(folder: Path) -> GridFile:
    """A folder's `sweep.toml` as a grid file.

    Raises:
        DecodecliError: it is none that this program knows.
    """
    try:
        return read_grid(current(folder, MANIFEST))
    except UsageError as error:
        raise DecodecliError(f"{error.message} (in {folder})", _RESTORE) from None


def manifest_grid(folder: Path) -> Grid:
    """The grid of a folder's sweep.

    Raises:
        DecodecliError: it is none that this program knows.
    """
    file = read_manifest_grid(folder)
    try:
        return plan(file.values, file.prompts, file.zip_groups, description=file.description)
    except UsageError as error:
        raise DecodecliError(f"{current(folder, MANIFEST)}: {error.message}", _RESTORE) from None


def read_manifest(folder: Path) -> StoredManifest | None:
    """The `sweep.toml` of a folder, None where it has none.

    Raises:
        UsageError: the file is there but was not written by a sweep, or sets what only the user can.
        DecodecliError: it cannot be read, or a value in it is of another kind.
    """
    path = current(folder, MANIFEST)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would wait for ever
            raise OSError(0, "it is not a file")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        about = values.pop(TABLE)
        if not isinstance(about["fingerprint"], str) or not isinstance(about["cells"], int):
            raise TypeError
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise DecodecliError(
            f"{path} cannot be read: {error.strerror}", "check the path"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path} was not written by a sweep", _RESTORE) from None
    check_trust(values, str(path))
    bad = [name for name, kind in _TYPES.items() if not isinstance(about.get(name), kind | None)]
    for table in ("model", "versions"):
        entries = about.get(table, {}).items() if table not in bad else ()
        bad += [
            f"{table}.{name}"
            for name, value in entries
            if not isinstance(value, int if name in _COUNTS else str)
        ]
    if not bad and not 0 <= about.get("tokens_per_second", 0) < _FASTEST:
        bad = ["tokens_per_second"]
    if bad:
        raise DecodecliError(f"{path}: {bad[0]} in [{TABLE}] cannot be read", _RESTORE)
    return StoredManifest(values, about)


def check_same_grid(
    stored: StoredManifest, manifest: Manifest, folder: Path, extend: bool = False
) -> None:
    """Refuse a folder whose cells are of another grid, naming the values that differ.

    Args:
        extend: whether it will do that all its cells are in this grid.

    Raises:
        UsageError: it is another grid.
    """
    if stored.fingerprint == manifest.grid.fingerprint:
        return
    try:
        stored_grid = manifest_grid(folder)
        is_larger = manifest.grid.holds(stored_grid)
    except DecodecliError:
        is_larger = False
    if extend and is_larger:
        return
    now = tomllib.loads(manifest.grid.as_toml())
    changed = [
        name
        for name in dict.fromkeys([*now, *stored.values])
        if name not in _LOAD_OPTIONS and now.get(name) != stored.values.get(name)
    ]
    listed = f" ({', '.join(changed[:5])}{', …' if len(changed) > 5 else ''})" if changed else ""
    if extend:
        raise UsageError(
            f"{folder} holds cells that are not in this grid{listed}",
            "--extend adds values: give those that it has as well, and new prompts last",
        )
    raise UsageError(
        f"{folder} holds a sweep of another grid{listed}",
        "--extend keeps its cells and adds the others; or give another --out"
        if is_larger
        else f"give another --out, or go on with that one: decodecli sweep --out {folder}",
    )


def check_same_model(stored: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse a folder whose cells are of another model; only what both sides know is compared.

    The name counts where the weights are not known: a model may lie in another folder today. Another
    kind of device draws other tokens from the same seed.

    Raises:
        UsageError: it is another model.
    """
    has_weights = stored.get("weights") and now.get("weights")
    names = ("weights",) if has_weights else ("name", "revision")
    for name in (*names, "dtype", "quantize", "device"):
        before, after = stored.get(name), now.get(name)
        if name == "device":
            before, after = (str(x).partition(":")[0] if x else x for x in (before, after))
        if before is None or after is None or before == after:
            continue
        what = f"{name} {before}"
        if name == "weights":
            before, after = stored.get("name"), now.get("name")
            what = f"model {before}" + (" with other weights" if before == after else "")
        elif name == "name":
            what = f"model {before}"
        raise UsageError(
            f"the finished cells in {folder} are of {what}"
            + ("" if before == after else f", not {after}"),
            "ask for the same model as before, or give another --out",
        )


def differences(stored: StoredManifest, manifest: Manifest) -> list[str]:
    """What is not as it was when the sweep began, yet no reason not to go on."""
    notes = []
    now = versions()
    changed = [f"{name} {old}" for name, old in stored.versions.items() if old != now.get(name)]
    if changed:
        notes.append(f"the first cells were run with {', '.join(changed)}")
    if bool(stored.about.get("exact")) != manifest.exact:
        notes.append(f"the first cells were run with{'out' if manifest.exact else ''} --exact")
    had_traces = bool(stored.about.get("traces"))
    if manifest.traces and not had_traces:
        notes.append("the first cells have no traces")
    if had_traces and not manifest.traces:
        notes.append("the first cells have traces, those that follow will not")
    return notes


def weights_fingerprint(checkpoint: Checkpoint) -> str:
    """What tells a model's weights from others, wherever the files lie: a hash of the configuration,
    and of each weight file's name, size and three samples (all of a large one would take minutes)."""
    digest = hashlib.sha256((checkpoint.folder / "config.json").read_bytes())
    for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt"):
        for path in sorted(checkpoint.folder.glob(pattern)):
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(f"{path.name} {size} ".encode("utf-8", "surrogateescape"))
                for start in (0, (size - _SAMPLE) // 2, size - _SAMPLE):
                    file.seek(max(start, 0))
                    digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
