"""Where a model's files are, and what their headers say, before anything heavy is imported.

A name is the built-in model, a local folder, or a repository on the Hugging Face hub. Whatever it is,
loading goes on from a local folder; a hub name is looked up in the local cache first, and the network
is asked only for what is not there.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decodecli.builtin import model_path
from decodecli.errors import LoadError, PickledWeightsError, UsageError
from decodecli.models.model_config import check_ids, check_sizes
from decodecli.models.model_files import (
    check_no_pickles,
    check_regular,
    first_line,
    indexed_files,
    read_json,
    safetensors_header,
)
from decodecli.settings import BUILTIN, LoadParams

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?\Z")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.py"]
_UNWANTED = [
    "original/*",
    "onnx/*",
    "*.gguf",
    "*.onnx",
    "flax_model*",
    "tf_model*",
    "consolidated*",
]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoint:
    """A model's local folder and what its headers say.

    parameters: the number of weights by the safetensors headers, 0 when they do not tell.
    """

    name: str
    folder: Path
    revision: str | None
    config: dict[str, Any]
    parameters: int


def find_checkpoint(
    params: LoadParams, progress: Progress = lambda _: None, *, download: bool = True
) -> Checkpoint:
    """The local folder of a model, downloaded if need be, checked for what can be seen from outside.

    With `download` false only what lies on this machine is looked at.

    Raises:
        LoadError: there is no such model, or it is of a kind that cannot be loaded.
    """
    revision = params.revision
    folder = local_folder(params.model, revision)
    if folder is None:
        folder = _from_hub(params, progress, download)
        revision = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else revision
    config = _check_folder(folder, params)
    weights = [safetensors_header(path) for path in sorted(folder.glob("*.safetensors"))]
    check_sizes(config, folder, sum(map(len, weights)) if weights else None)
    parameters = sum(tensor["parameters"] for header in weights for tensor in header.values())
    return Checkpoint(params.model, folder, revision, config, parameters)


def local_folder(name: str, revision: str | None) -> Path | None:
    """The folder that a model's name stands for on this machine; None for a hub name.

    Raises:
        UsageError: a revision of what is not a hub name.
        LoadError: it is a file.
    """
    folder = model_path() if name == BUILTIN else Path(os.path.expanduser(name))
    if os.path.isdir(folder):  # unlike Path's, never raises
        if revision is not None:
            raise UsageError(
                f"--revision {revision} goes with a hub name; {name} is a folder",
                "leave --revision out",
            )
        return folder
    if os.path.exists(folder):
        raise _not_a_folder(folder)
    return None


def _not_a_folder(path: Path) -> LoadError:
    if _is_gguf(path):
        return LoadError(
            f"{path} is a GGUF file, which transformers cannot run as it is",
            "give the folder or hub name of the original model (safetensors)",
        )
    return LoadError(
        f"{path} is a file, not a model folder", "give the folder that holds config.json"
    )


def _is_gguf(path: Path) -> bool:
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _check_folder(folder: Path, params: LoadParams) -> dict[str, Any]:
    """The folder's config.json, if the folder can hold a causal language model."""
    check_regular(folder)
    if not (folder / "config.json").is_file():
        raise _no_config(folder)
    config = read_json(
        folder / "config.json", "copy the original model's config.json into the folder"
    )
    generation = folder / "generation_config.json"
    if generation.is_file():
        check_ids(read_json(generation), generation)
    if not has_tokenizer(folder):
        raise LoadError(
            f"{folder} has no tokenizer (tokenizer.json or tokenizer.model)",
            "copy the tokenizer files of the original model into the folder",
        )
    if not any(folder.glob("*.safetensors")) and not params.allow_pickle:
        if any(True for pattern in _PICKLES for _ in folder.glob(pattern)):
            raise PickledWeightsError(
                f"{folder} has only pickled weights, which can run code when they are loaded",
                "convert them to safetensors, or add --allow-pickle if you trust their source",
            )
        raise LoadError(f"{folder} has no weights (*.safetensors)", "is the download complete?")
    if not params.allow_pickle:
        check_no_pickles(folder, config)
    return config


def has_tokenizer(folder: Path) -> bool:
    if any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return True
    return any(True for pattern in ("*.tiktoken", "*.model") for _ in folder.glob(pattern))


def _no_config(folder: Path) -> LoadError:
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        try:
            base = read_json(adapter).get("base_model_name_or_path")
        except LoadError:
            base = None
        return LoadError(
            f"{folder} is a LoRA adapter, not a whole model",
            f"merge it into its base model{f' ({base})' if base else ''} and load the result",
        )
    gguf = [path for path in folder.iterdir() if path.suffix.lower() == ".gguf"]
    if gguf:
        return _not_a_folder(gguf[0])
    return LoadError(f"{folder} has no config.json", "give the folder that transformers saved")


def _from_hub(params: LoadParams, progress: Progress, download: bool) -> Path:
    """The snapshot folder of a hub repository with its weights."""
    return fetch_snapshot(
        params.model,
        params.revision,
        [*_WANTED, *(_PICKLES if params.allow_pickle else ())],
        lambda folder: _is_complete(folder, params),
        progress,
        what=params.model,
        download=download,
    )


def fetch_snapshot(
    name: str,
    revision: str | None,
    wanted: list[str],
    complete: Callable[[Path], bool],
    progress: Progress,
    *,
    what: str,
    download: bool = True,
) -> Path:
    """The snapshot folder of a hub repository: from the cache if it is `complete`, else downloaded.

    Args:
        wanted: patterns of the files to have.
        what: what `progress` is told is being downloaded.
        download: whether the network may be asked.

    Raises:
        LoadError: there is no such repository, or it cannot be had.
    """
    if not is_hub_name(name):
        raise LoadError(f"there is no folder {name}", "give a model folder, a hub name, or builtin")
    import huggingface_hub
    from huggingface_hub import errors

    arguments: dict[str, Any] = {
        "repo_id": name,
        "revision": revision,
        "allow_patterns": wanted,
        "ignore_patterns": _UNWANTED,
    }
    try:
        folder = Path(huggingface_hub.snapshot_download(**arguments, local_files_only=True))
        if complete(folder):
            return folder
    except (errors.LocalEntryNotFoundError, OSError, ValueError):
        pass
    if not download:
        raise LoadError(
            f"no folder {name} here, and not in the local cache", "generate downloads it"
        )
    _check_online(name, "connect and run again, or use -m builtin or a model folder")
    progress(f"downloading {what}")
    with _download_explained(name, revision), _no_bars():
        return Path(huggingface_hub.snapshot_download(**arguments))


def _check_online(name: str, hint: str) -> None:
    import huggingface_hub

    offline = _why_offline(huggingface_hub.constants.ENDPOINT)
    if offline:
        raise LoadError(f"no folder {name} here, not in the local cache, and {offline}", hint)


def is_hub_name(name: str) -> bool:
    """Whether a name can be that of a hub repository."""
    return bool(_HUB_NAME.match(name))


def fetch_headers(
    params: LoadParams, progress: Progress = lambda _: None
) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]:
    """A hub model's config.json, and its tensors' names with dtype and shape: kilobytes, no weights.

    Raises:
        LoadError: there is no such model, it has no safetensors files, or the hub cannot be asked.
    """
    import huggingface_hub
    from huggingface_hub import errors

    _check_online(params.model, "connect and run again, or give a model folder")
    progress(f"asking the hub about {params.model}")
    where: dict[str, Any] = {"repo_id": params.model, "revision": params.revision}
    with _download_explained(params.model, params.revision), _no_bars():
        try:
            path = huggingface_hub.hf_hub_download(filename="config.json", **where)
            metadata = huggingface_hub.get_safetensors_metadata(**where)
        except errors.NotASafetensorsRepoError as error:
            raise LoadError(
                f"{params.model} has no safetensors files on the hub", "their headers are needed"
            ) from error
        except (errors.EntryNotFoundError, errors.SafetensorsParsingError) as error:
            raise LoadError(
                f"{params.model} on the hub is no model that transformers saved: it lacks config.json "
                "or its weights cannot be read",
                "is it a GGUF file or an adapter? give the original model",
            ) from error
        config = read_json(Path(path))
    tensors = {
        name: (str(tensor.dtype), tuple(tensor.shape))
        for file in metadata.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
    return config, tensors


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """No bars of huggingface_hub's: `progress` has the line."""
    from huggingface_hub import utils

    enabled = not utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            utils.enable_progress_bars()


@contextlib.contextmanager
def _download_explained(name: str, revision: str | None) -> Iterator[None]:
    """Turn what a download raises into a line on what is wrong and one on what to do."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise LoadError(
            f"{name} is gated: its owner asks you to accept terms first",
            f"accept them at {huggingface_hub.constants.ENDPOINT}/{name}, then `hf auth login`",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise LoadError(f"{name} has no revision {revision}", "leave --revision out") from error
    except errors.RepositoryNotFoundError as error:
        raise LoadError(
            f"no folder {name} here and no such model on the hub",
            "check the spelling (owner/name); a private model needs `hf auth login`",
        ) from error
    except (OSError, ValueError) as error:
        raise LoadError(
            f"{name} could not be downloaded: {first_line(error)}", "run again to resume"
        ) from error


def _is_complete(folder: Path, params: LoadParams) -> bool:
    """Whether a cached snapshot has a configuration, a tokenizer and every weight file."""
    if not (folder / "config.json").is_file():
        return False
    if not has_tokenizer(folder):
        return False
    indexes = list(folder.glob("*.safetensors.index.json"))
    for index in indexes:
        try:
            if not all((folder / shard).is_file() for shard in indexed_files(index)):
                return False
        except LoadError:
            return False
    if indexes or any(folder.glob("*.safetensors")):
        return True
    return params.allow_pickle and any(True for p in _PICKLES for _ in folder.glob(p))


def _why_offline(endpoint: str) -> str:
    """Why the hub cannot be asked, in words, or "". One quick look; no retries."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE forbids asking the hub"
    if any(
        os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    ):
        return ""  # the proxy knows the way
    where = urlsplit(endpoint)
    port = where.port or (80 if where.scheme == "http" else 443)
    # Each address gets its own time-out: a few of them in the dark must not add up to a minute.
    if any(_reachable(address) for address in _addresses(where.hostname or "", port)[:2]):
        return ""
    return f"{where.hostname} cannot be reached"


def _addresses(host: str, port: int) -> list[Any]:
    """One address of each family."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list({family: address for family, _, _, _, address in reversed(addresses)}.values())


def _reachable(address: Any) -> bool:
    try:
        socket.create_connection(address[:2], timeout=2).close()
    except OSError:
        return False
    return True
