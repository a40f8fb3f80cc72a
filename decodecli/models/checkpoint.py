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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decodecli.builtin import model_path
from decodecli.errors import LoadError, PickledWeightsError, UsageError
from decodecli.models.model_files import (
    check_config,
    check_ids,
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
    "tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "*.model", "*.tiktoken",
)  # fmt: skip
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.py"]
_UNWANTED = [
    "original/*", "onnx/*", "*.gguf", "*.onnx", "flax_model*", "tf_model*", "consolidated*",
]  # fmt: skip

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
        folder = fetch_snapshot(
            params.model,
            revision,
            [*_WANTED, *(PICKLES if params.allow_pickle else ())],
            lambda folder: _is_complete(folder, params),
            progress,
            what=params.model,
            download=download,
        )
        revision = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else revision
    config = _check_folder(folder, params)
    weights = [safetensors_header(path) for path in sorted(folder.glob("*.safetensors"))]
    check_config(config, folder / "config.json", sum(map(len, weights)) if weights else None)
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
    is_gguf = path.suffix.lower() == ".gguf"
    if path.is_file():
        with contextlib.suppress(OSError), path.open("rb") as file:
            is_gguf = is_gguf or file.read(4) == b"GGUF"
    if is_gguf:
        return LoadError(
            f"{path} is a GGUF file, which transformers cannot run as it is",
            "give the folder or hub name of the original model (safetensors)",
        )
    return LoadError(
        f"{path} is a file, not a model folder", "give the folder that holds config.json"
    )


def _has_any(folder: Path, patterns: Iterable[str]) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a file that a tokenizer can be made of."""
    return _has_any(folder, _TOKENIZER_FILES)


def _check_folder(folder: Path, params: LoadParams) -> dict[str, Any]:
    """The folder's config.json, if the folder can hold a causal language model."""
    check_regular(folder)
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            base = None
            with contextlib.suppress(LoadError):
                base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
            raise LoadError(
                f"{folder} is a LoRA adapter, not a whole model",
                f"merge it into its base model{f' ({base})' if base else ''} and load the result",
            )
        for path in folder.iterdir():
            if path.suffix.lower() == ".gguf":
                raise _not_a_folder(path)
        raise LoadError(f"{folder} has no config.json", "give the folder that transformers saved")
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
    if params.allow_pickle:
        return config
    if not _has_any(folder, ["*.safetensors"]):
        if _has_any(folder, PICKLES):
            raise PickledWeightsError(
                f"{folder} has only pickled weights, which can run code when they are loaded",
                "convert them to safetensors, or add --allow-pickle if you trust their source",
            )
        raise LoadError(f"{folder} has no weights (*.safetensors)", "is the download complete?")
    check_no_pickles(folder, config)
    return config


def _is_complete(folder: Path, params: LoadParams) -> bool:
    """Whether a cached snapshot has a configuration, a tokenizer and every weight file."""
    try:
        indexes = folder.glob("*.safetensors.index.json")
        shards = [name for index in indexes for name in indexed_files(index)]
    except LoadError:
        return False
    return (
        (folder / "config.json").is_file()
        and has_tokenizer(folder)
        and all((folder / shard).is_file() for shard in shards)
        and _has_any(folder, ["*.safetensors", *(PICKLES if params.allow_pickle else ())])
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

    arguments: dict[str, Any] = {
        "repo_id": name,
        "revision": revision,
        "allow_patterns": wanted,
        "ignore_patterns": _UNWANTED,
    }
    with contextlib.suppress(OSError, ValueError):  # not in the cache, or no name
        folder = Path(huggingface_hub.snapshot_download(**arguments, local_files_only=True))
        if complete(folder):
            return folder
    if not download:
        raise LoadError(
            f"no folder {name} here, and not in the local cache", "generate downloads it"
        )
    with _hub_errors(name, revision, "connect and run again, or use -m builtin or a model folder"):
        progress(f"downloading {what}")
        return Path(huggingface_hub.snapshot_download(**arguments))


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

    name = params.model
    repository: dict[str, Any] = {"repo_id": name, "revision": params.revision}
    with _hub_errors(name, params.revision, "connect and run again, or give a model folder"):
        progress(f"asking the hub about {name}")
        try:
            path = huggingface_hub.hf_hub_download(filename="config.json", **repository)
            metadata = huggingface_hub.get_safetensors_metadata(**repository)
        except errors.NotASafetensorsRepoError as error:
            raise LoadError(
                f"{name} has no safetensors files on the hub", "their headers are needed"
            ) from error
        except (errors.EntryNotFoundError, errors.SafetensorsParsingError) as error:
            raise LoadError(
                f"{name} on the hub is no model that transformers saved: it lacks config.json "
                "or its weights cannot be read",
                "is it a GGUF file or an adapter? give the original model",
            ) from error
        config = read_json(Path(path))
    tensors = {
        key: (str(tensor.dtype), tuple(tensor.shape))
        for file in metadata.files_metadata.values()
        for key, tensor in file.tensors.items()
    }
    return config, tensors


@contextlib.contextmanager
def _hub_errors(name: str, revision: str | None, offline_hint: str) -> Iterator[None]:
    """Turn what a download raises into a line on what is wrong and one on what to do; and none of
    huggingface_hub's bars, for `progress` has the line."""
    from huggingface_hub import constants, errors, utils

    if offline := _why_offline():
        from decodecli.config import nearest

        if nearest(name, [BUILTIN]):
            offline_hint = f"did you mean {BUILTIN}?"
        raise LoadError(
            f"no folder {name} here, not in the local cache, and {offline}", offline_hint
        )
    bars = not utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    except errors.GatedRepoError as error:
        raise LoadError(
            f"{name} is gated: its owner asks you to accept terms first",
            f"accept them at {constants.ENDPOINT}/{name}, then `hf auth login`",
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
    finally:
        if bars:
            utils.enable_progress_bars()


def _why_offline() -> str:
    """Why the hub cannot be asked, in words, or "". One quick look; no retries."""
    from urllib.request import getproxies

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids asking the hub"
    if getproxies().keys() & {"https", "all"}:
        return ""  # the proxy knows the way
    url = urlsplit(constants.ENDPOINT)
    port = url.port or (80 if url.scheme == "http" else 443)
    with contextlib.suppress(OSError):
        addresses = socket.getaddrinfo(url.hostname or "", port, type=socket.SOCK_STREAM)
        # One address of each family: a dozen in the dark must not add up to a minute.
        hosts = {family: str(address[0]) for family, *_, address in reversed(addresses)}
        for host in hosts.values():
            with contextlib.suppress(OSError):
                socket.create_connection((host, port), timeout=2).close()
                return ""
    return f"{url.hostname} cannot be reached"
