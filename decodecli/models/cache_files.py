"""The cache folder of quantized weights: where it is, what lies in it, how a file gets there whole.

An entry is one safetensors file: the tensors of a loaded model, and in its metadata what it was made
from and how the layers are put together again. Its name carries a hash of everything on which its
bytes depend, so that an entry of another version, checkpoint or processor is simply another file.
No torch here: `decodecli models cache` answers at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decodecli.errors import LoadError
from decodecli.models.model_files import NUMBER_BYTES, safetensors_header

VARIABLE = "DECODECLI_CACHE"
_OFF = ("off", "none", "no", "0", "false")
_NAME = re.compile(  # of entries, and of files on the way to be one
    r".+-(?:nf4|fp4|int8)-[0-9a-f]{24}\.safetensors(?:\.\d+-[0-9a-f]{8}\.part)?"
)
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_STALE = 24 * 3600.0  # seconds after which a half-written file belongs to nobody
_PIECE = 2**21  # bytes asked of the disk at once: for more, Linux fetches none of it
_SUMMED = 2**24  # bytes that a core takes at once for the checksum
_RESERVE = 256 * 2**20  # bytes of the disk that are left alone


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache. `about` is what it was made from: name, scheme, dtype, device, versions."""

    path: Path
    bytes: int
    modified: float
    about: dict[str, Any]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on its way to disk: `data` is its bytes, `dtype` spelt as safetensors does (BF16, U8)."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def cache_folder() -> Path | None:
    """The folder of quantized weights, None when it is turned off.

    `DECODECLI_CACHE` names the cache's folder, or turns it off; else it is `decodecli` in the
    platform's folder for caches (`~/.cache/decodecli`, by `XDG_CACHE_HOME` where that is set).
    """
    named = os.environ.get(VARIABLE, "").strip()
    if named.lower() in _OFF:
        return None
    if named:
        return Path(os.path.expanduser(named)) / "quantized"
    import platformdirs

    return Path(platformdirs.user_cache_dir("decodecli", appauthor=False)) / "quantized"


def entry_path(folder: Path, name: str, scheme: str, key: Mapping[str, Any]) -> Path:
    """Where the entry for a key lies: a readable name, then a hash of the whole key."""
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name).strip("-.")[:40] or "model"
    text = json.dumps(key, sort_keys=True, ensure_ascii=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    return folder / f"{short}-{scheme}-{digest}.safetensors"


def entries() -> list[CacheEntry]:
    """The files of the cache, the largest first. What cannot be read has an empty `about`; what is not
    named as this cache names its files is not of it."""
    folder = cache_folder()
    if folder is None or not folder.is_dir():
        return []
    listed = []
    for path in _files(folder):
        with contextlib.suppress(OSError):  # another process may have cleared it
            status = path.stat()
            about: dict[str, Any] = {}
            with contextlib.suppress(LoadError, ValueError, OSError):
                about = read_metadata(path).get("about", {})
            listed.append(CacheEntry(path, status.st_size, status.st_mtime, about))
    return sorted(listed, key=lambda entry: (-entry.bytes, entry.path.name))


def clear() -> list[CacheEntry]:
    """Remove every file of the cache, and no other of the folder; returns those that were removed.

    Raises:
        LoadError: a file cannot be removed.
    """
    removed = []
    for entry in entries():
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise LoadError(
                f"{entry.path} cannot be removed: {error.strerror}", "check its permissions"
            ) from error
        removed.append(entry)
    return removed


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if _NAME.fullmatch(path.name))


def read_metadata(path: Path) -> dict[str, Any]:
    """What an entry says of itself; under "checksum" that of the whole file.

    Raises:
        LoadError: the file is cut short or is no safetensors file, or cannot be read.
        ValueError: it is not of this cache.
    """
    safetensors_header(path)  # `safetensors.safe_open` would import numpy
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        metadata = json.loads(file.read(length)).get("__metadata__", {})
    entry = json.loads(metadata.get("decodecli", "")) if isinstance(metadata, dict) else None
    if not isinstance(entry, dict):
        raise ValueError("not of this cache")
    return {**entry, "checksum": metadata.get("checksum")}


def checksum(metadata: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> str:
    """Of what an entry says of itself, and of its tensors' names, types, shapes and bytes.

    The bytes by CRC-32, in pieces, on all cores: 1 GiB/s each, where SHA-256 takes 0.6 and BLAKE2 0.3.
    It is against damage and edits, not against somebody who makes a new checksum for them.
    """
    about = {key: value for key, value in metadata.items() if key != "checksum"}
    kinds = {name: [tensor.dtype, list(tensor.shape)] for name, tensor in tensors.items()}
    pieces = [
        tensor.data[start : start + _SUMMED]
        for _, tensor in sorted(tensors.items())
        for start in range(0, tensor.data.nbytes, _SUMMED)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        sums = list(cores.map(zlib.crc32, pieces))
    return hashlib.sha256(json.dumps([about, kinds, sums], sort_keys=True).encode()).hexdigest()


def write_entry(
    path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> None:
    """Write an entry so that it is there whole or not at all, whoever else writes it meanwhile.

    The data goes to a file of its own, is flushed to the disk, and then takes the entry's name. File
    and folder are the user's alone, for the weights may be of a private checkpoint.
    Tensors of whole cache lines come first and begin on one.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    ordered = sorted(  # then wider numbers first, so that each lies where it may
        tensors.items(),
        key=lambda item: (
            item[1].data.nbytes % _ALIGNMENT != 0,
            -NUMBER_BYTES.get(item[1].dtype, 1),
            item[0],
        ),
    )
    header: dict[str, Any] = {
        "__metadata__": {
            "decodecli": json.dumps(metadata), "checksum": checksum(metadata, tensors)
        }
    }  # fmt: skip
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.data.nbytes
        header[name] = {
            "dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in _files(folder):  # what a process that was killed left behind
        with contextlib.suppress(OSError):
            if part.suffix == ".part" and time.time() - part.stat().st_mtime > _STALE:
                part.unlink()
    size, free = 8 + len(text) + end, shutil.disk_usage(folder).free
    if free < size + _RESERVE:
        raise OSError(0, f"{size / 2**30:.1f} GiB are needed and {free / 2**30:.1f} are free")
    part = folder / f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        with os.fdopen(os.open(part, _NEW_FILE, 0o600), "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.writelines(tensor.data for _, tensor in ordered)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_ahead(paths: Iterable[Path]) -> None:
    """Have the system fetch files from the disk while the libraries are still being imported; it
    does so in pieces only, and nothing waits for it."""
    if not hasattr(os, "posix_fadvise"):
        return

    def ask() -> None:
        for path in list(paths):
            with contextlib.suppress(OSError), path.open("rb") as file:
                for start in range(0, os.fstat(file.fileno()).st_size, _PIECE):
                    os.posix_fadvise(file.fileno(), start, _PIECE, os.POSIX_FADV_WILLNEED)

    threading.Thread(target=ask, name="read-ahead", daemon=True).start()
