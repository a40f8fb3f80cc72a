"""`decodecli models`: the models at hand; whether one fits here; the cache of quantized weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import MODEL, OUTPUT, Argument, Option, command
from decodecli.cli.output import write_indented
from decodecli.cli.usage import Command, Group
from decodecli.library_logging import quiet_libraries
from decodecli.memory_size import memory_size
from decodecli.settings import check_choice, check_positive

if TYPE_CHECKING:
    from decodecli.config import Effective
    from decodecli.models.cache_files import CacheEntry
    from decodecli.models.memory_estimate import Fit, SchemeFit

FORMATS = ("text", "json")
_PARTS = ("weights", "KV cache", "working", "total", "headroom")

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


@command(o.format_of(*FORMATS), o.COLOR, o.DEBUG)
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
    from decodecli.builtin import card, model_path

    check_choice("format", format, FORMATS)
    facts, folder = card(), model_path()
    cached = _cached()
    if format == "json":
        write_indented({"builtin": {**facts, "folder": str(folder)}, "cached": cached})
        return
    lines = ["builtin", *_facts(facts), f"  {'card':<18}{folder / 'MODEL_CARD.md'}"]
    lines += ["", "in the local hub cache"]
    lines += [f"  {row['name']:<44} {memory_size(row['bytes']):>10}" for row in cached]
    lines += [] if cached else ["  none; name a hub model with -m owner/name to download it"]
    streams.write_stdout(streams.printable("\n".join(lines)) + "\n")


def _facts(facts: dict[str, Any]) -> list[str]:
    """The card's plain facts, a line each."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, str | int | float) and name != "name":
            text = f"{value:,}" if isinstance(value, int) else str(value)
            lines.append(f"  {name.replace('_', ' '):<18}{text}")
    return lines


def _cached() -> list[dict[str, Any]]:
    """Model repositories in the hub cache: name and size."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return []
    rows = [{"name": r.repo_id, "bytes": r.size_on_disk} for r in repos if r.repo_type == "model"]
    return sorted(rows, key=lambda row: str(row["name"]))


@command(NAME, CONTEXT, o.REVISION, o.DEVICE, o.format_of(*FORMATS), o.COLOR, o.DEBUG)
def fit(effective: Effective, context: int | None = None, format: str = "text") -> None:
    """Say whether a model fits this GPU or this machine's memory, before it is downloaded or loaded.

    Told from config.json and the headers of the weight files alone, in each number type and scheme:
    weights, the cache of keys and values, the work of a step, and what would be left.

    [bold]Examples[/bold]

      decodecli models fit mistralai/Mistral-7B-v0.1

      decodecli models fit ./my-model --context 32768 --device cpu

      decodecli models fit builtin --format json
    """
    check_choice("format", format, FORMATS)
    if context is not None:
        check_positive("context", context, "it is how many positions to keep")
    params = effective.load()
    # Imported now that every value is known to make sense.
    from decodecli.models.machine import device_memory
    from decodecli.models.memory_estimate import estimate, find_headers

    with quiet_libraries(allowed=False):
        headers = find_headers(params)
        memory_fit = estimate(headers, device_memory(_device(params.device)), context)
    if format == "json":
        write_indented(_fit_as_dict(memory_fit))
    else:
        streams.write_stdout(streams.printable("\n".join(_fit_lines(memory_fit))) + "\n")


def _device(wanted: str) -> str:
    if wanted == "cpu":  # no need to ask PyTorch, which takes a second to come
        return wanted
    from decodecli.models.resolve import choose_device

    return choose_device(wanted)


def _fit_as_dict(fit: Fit) -> dict[str, Any]:
    memory = fit.memory
    return {
        "model": fit.name,
        "parameters": fit.parameters,
        "context": fit.context,
        "model_context": fit.longest,
        "device": memory.device,
        "device_name": memory.name,
        "free_bytes": memory.free,
        "total_bytes": memory.total,
        "schemes": [
            {
                "scheme": scheme.scheme,
                "weights_bytes": scheme.weights,
                "kv_cache_bytes": scheme.kv_cache,
                "working_bytes": scheme.working,
                "total_bytes": scheme.total,
                "headroom_bytes": scheme.headroom,
                "fits": scheme.fits,
            }
            for scheme in fit.schemes
        ],
        "assumed": list(fit.assumed),
    }


def _fit_lines(fit: Fit) -> list[str]:
    memory = fit.memory
    free = f"{memory_size(memory.free)} of {memory_size(memory.total)} free"
    longest = f" of {fit.longest:,}" if fit.longest else ""
    lines = [
        f"{fit.name} · {fit.parameters:,} parameters · {fit.context:,}{longest} positions",
        f"{memory.device} · {memory.name} · {free}",
        "",
        f"{'':<10}" + "".join(f"{name:>12}" for name in _PARTS),
    ]
    return [*lines, *map(_scheme_line, fit.schemes), "", "assumed: " + "; ".join(fit.assumed)]


def _scheme_line(scheme: SchemeFit) -> str:
    sizes = (scheme.weights, scheme.kv_cache, scheme.working, scheme.total, scheme.headroom)
    columns = "".join(f"{memory_size(size):>12}" for size in sizes)
    return f"{scheme.scheme:<10}{columns}  {'fits' if scheme.fits else 'too large'}"


@command(CLEAR, o.format_of(*FORMATS), o.COLOR, o.DEBUG)
def cache(clear: bool = False, format: str = "text") -> None:
    """List the quantized weights that are kept for the next start, or remove them.

    DECODECLI_CACHE names another folder for them; DECODECLI_CACHE=off keeps none.

    [bold]Examples[/bold]

      decodecli models cache

      decodecli models cache --clear
    """
    from decodecli.models import cache_files

    check_choice("format", format, FORMATS)
    folder = cache_files.cache_folder()
    entries = cache_files.clear() if clear else cache_files.entries()
    total = sum(entry.bytes for entry in entries)
    if format == "json":
        report = {
            "folder": str(folder) if folder else None,
            "removed" if clear else "entries": [_entry_as_dict(entry) for entry in entries],
            "bytes": total,
        }
        write_indented(report)
        return
    if folder is None:
        lines = ["the cache is turned off by DECODECLI_CACHE"]
    elif clear:
        lines = [f"{len(entries)} removed, {memory_size(total)}, from {folder}"]
    else:
        lines = [
            f"{len(entries)} kept, {memory_size(total)}, in {folder}",
            *map(_entry_line, entries),
        ]
    streams.write_stdout(streams.printable("\n".join(lines)) + "\n")


def _entry_as_dict(entry: CacheEntry) -> dict[str, Any]:
    return {"file": entry.path.name, "bytes": entry.bytes, **entry.about}


def _entry_line(entry: CacheEntry) -> str:
    import datetime

    about = entry.about
    made = datetime.datetime.fromtimestamp(entry.modified).strftime("%Y-%m-%d %H:%M")
    if about:
        what = f"{about.get('name')} · {about.get('scheme')} · {about.get('dtype')}"
        what += f" · {about.get('device')}"
    else:
        what = f"{entry.path.name} · unfinished or unreadable"
    return f"  {memory_size(entry.bytes):>10}  {made}  {what}"


app = typer.Typer(
    cls=Group, rich_markup_mode="rich", add_completion=False, invoke_without_command=True
)
app.callback()(models)
app.command(cls=Command)(fit)
app.command(cls=Command)(cache)
