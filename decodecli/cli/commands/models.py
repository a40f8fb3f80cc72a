"""`decodecli models`: the models at hand; whether one fits here; the cache of quantized weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from decodecli.cli import options as o
from decodecli.cli.command import MODEL, OUTPUT, Argument, Option, command
from decodecli.cli.output import write_answer
from decodecli.cli.usage import Command, Group
from decodecli.library_logging import quiet_libraries
from decodecli.memory_size import memory_size
from decodecli.ranges import check_positive

if TYPE_CHECKING:
    from decodecli.config import Effective
    from decodecli.models.cache_files import CacheEntry

FORMAT = o.format_of("text", "json")
# What a model takes, by the names in `SchemeFit`.
_PARTS = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "working": "working",
    "total": "total",
    "headroom": "headroom",
}

NAME = Argument(
    "model",
    "NAME_OR_PATH",
    "Hub name or local folder of a causal language model, or builtin.",
    required=True,
)
CONTEXT = Option(
    "context", int, MODEL, "Positions to keep keys and values for.", "N",
    "4096, or the model's own where that is less"
)  # fmt: skip
CLEAR = Option("clear", bool, OUTPUT, "Remove every file of the cache.")


@command(FORMAT, o.COLOR, o.DEBUG)
def models(ctx: typer.Context, format: str = "text") -> None:
    """List the built-in model with its card's facts, and the models in the local hub cache.

    [bold]Examples[/bold]

      decodecli models

      decodecli models --format json

      decodecli models fit mistralai/Mistral-7B-v0.1

      decodecli models cache
    """
    if ctx.invoked_subcommand is not None:
        return
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from decodecli.builtin import card, model_path

    facts, folder = card(), model_path()
    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except (CacheNotFound, OSError, ValueError):
        repos = []
    cached = [
        {"name": repo.repo_id, "bytes": repo.size_on_disk}
        for repo in sorted(repos, key=lambda repo: repo.repo_id)
    ]
    lines = ["builtin"]
    for name, value in facts.items():
        if isinstance(value, str | int | float) and name != "name":
            text = f"{value:,}" if isinstance(value, int) else str(value)
            lines.append(f"  {name.replace('_', ' '):<18}{text}")
    lines += [f"  {'card':<18}{folder / 'MODEL_CARD.md'}", "", "in the local hub cache"]
    lines += [f"  {row['name']:<44} {memory_size(row['bytes']):>10}" for row in cached]
    lines += [] if cached else ["  none; name a hub model with -m owner/name to download it"]
    report = {"builtin": {**facts, "folder": str(folder)}, "cached": cached}
    write_answer(report, format, lines)


@command(NAME, CONTEXT, o.REVISION, o.DEVICE, FORMAT, o.COLOR, o.DEBUG)
def fit(effective: Effective, context: int | None = None, format: str = "text") -> None:
    """Say whether a model fits this GPU or this machine's memory, before it is downloaded or loaded.

    Told from config.json and the headers of the weight files alone, in each number type and scheme:
    weights, the cache of keys and values, the work of a step, and what would be left.

    [bold]Examples[/bold]

      decodecli models fit mistralai/Mistral-7B-v0.1

      decodecli models fit ./my-model --context 32768 --device cpu

      decodecli models fit builtin --format json
    """
    if context is not None:
        check_positive("context", context, "it is how many positions to keep")
    params = effective.load()
    # Imported now that every value is known to make sense.
    from decodecli.models.machine import device_memory
    from decodecli.models.memory_estimate import estimate, find_headers

    with quiet_libraries(allowed=False):
        headers = find_headers(params)
        device = params.device
        if device != "cpu":  # which needs no PyTorch, and that takes a second to come
            from decodecli.models.resolve import choose_device

            device = choose_device(device)
        answer = estimate(headers, device_memory(device), context)
    memory = answer.memory
    report = {
        "model": answer.name,
        "parameters": answer.parameters,
        "context": answer.context,
        "model_context": answer.longest,
        "device": memory.device,
        "device_name": memory.name,
        "free_bytes": memory.free,
        "total_bytes": memory.total,
        "schemes": [
            {
                "scheme": scheme.scheme,
                **{f"{part}_bytes": getattr(scheme, part) for part in _PARTS},
                "fits": scheme.fits,
            }
            for scheme in answer.schemes
        ],
        "assumed": list(answer.assumed),
    }
    longest = f" of {answer.longest:,}" if answer.longest else ""
    free = f"{memory_size(memory.free)} of {memory_size(memory.total)} free"
    lines = [
        f"{answer.name} · {answer.parameters:,} parameters · {answer.context:,}{longest} positions",
        f"{memory.device} · {memory.name} · {free}",
        "",
        f"{'':<10}" + "".join(f"{title:>12}" for title in _PARTS.values()),
    ]
    for scheme in answer.schemes:
        columns = "".join(f"{memory_size(getattr(scheme, part)):>12}" for part in _PARTS)
        lines.append(f"{scheme.scheme:<10}{columns}  {'fits' if scheme.fits else 'too large'}")
    write_answer(report, format, [*lines, "", "assumed: " + "; ".join(answer.assumed)])


@command(CLEAR, FORMAT, o.COLOR, o.DEBUG)
def cache(clear: bool = False, format: str = "text") -> None:
    """List the quantized weights that are kept for the next start, or remove them.

    DECODECLI_CACHE names another folder for them; DECODECLI_CACHE=off keeps none.

    [bold]Examples[/bold]

      decodecli models cache

      decodecli models cache --clear
    """
    from decodecli.models import cache_files

    folder = cache_files.cache_folder()
    entries = cache_files.clear() if clear else cache_files.entries()
    total = sum(entry.bytes for entry in entries)
    report = {
        "folder": str(folder) if folder else None,
        "removed" if clear else "entries": [
            {"file": entry.path.name, "bytes": entry.bytes, **entry.about} for entry in entries
        ],
        "bytes": total,
    }
    if folder is None:
        lines = ["the cache is turned off by DECODECLI_CACHE"]
    elif clear:
        lines = [f"{len(entries)} removed, {memory_size(total)}, from {folder}"]
    else:
        lines = [f"{len(entries)} kept, {memory_size(total)}, in {folder}"]
        lines += map(_entry_line, entries)
    write_answer(report, format, lines)


def _entry_line(entry: CacheEntry) -> str:
    import datetime

    made = datetime.datetime.fromtimestamp(entry.modified).strftime("%Y-%m-%d %H:%M")
    what = f"{entry.path.name} · unfinished or unreadable"
    if entry.about:
        what = " · ".join(
            str(entry.about.get(key)) for key in ("name", "scheme", "dtype", "device")
        )
    return f"  {memory_size(entry.bytes):>10}  {made}  {what}"


app = typer.Typer(
    cls=Group, rich_markup_mode="rich", add_completion=False, invoke_without_command=True
)
app.callback()(models)
app.command(cls=Command)(fit)
app.command(cls=Command)(cache)
