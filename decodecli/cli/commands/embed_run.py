"""What `embed` does once its options are known: checks, reads, shows."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decodecli.analysis.word_vectors import Item, items_from, read_groups
from decodecli.cli import output as reporting
from decodecli.cli import streams
from decodecli.cli.commands.embed import FORMATS
from decodecli.cli.run import loading_line
from decodecli.config import Effective, configs_folder
from decodecli.errors import LoadError, PickledWeightsError, UsageError, WriteError
from decodecli.library_logging import quiet_libraries
from decodecli.records.embedding import EmbedReport
from decodecli.settings import check_choice


@dataclass(frozen=True)
class Asked:
    """Everything that was asked for."""

    effective: Effective
    words: tuple[str, ...]
    file: str | None
    rows: tuple[int, ...]
    space: bool | None
    output: bool
    nearest: int
    format: str
    save: str | None
    plot: str | None
    plot_kind: str


def run(asked: Asked) -> None:
    """Check everything that can be checked before reading; then answer."""
    items = _items(asked)
    _check(asked, items)
    output, params = asked.effective.output(), asked.effective.load()
    with quiet_libraries(output.verbose), loading_line(params.model, output) as progress:
        from decodecli.analysis.embedding import embed

        try:
            report, vectors = embed(
                items,
                params,
                output=asked.output,
                space=asked.space,
                nearest=asked.nearest,
                progress=progress,
            )
        except PickledWeightsError as error:  # --allow-pickle is not an option here
            raise LoadError(error.message, "convert them to safetensors") from error
    if asked.save is not None:
        save(asked.save, report, vectors)
    if asked.plot not in (None, "-"):
        from decodecli.render.plots.embeddings import draw

        draw(report, str(asked.plot), asked.plot_kind)
    if not output.quiet:
        for note in (*asked.effective.notices, *report.notes):
            streams.tell(f"Note: {note}")
    _show(asked, report)


def _items(asked: Asked) -> tuple[Item, ...]:
    if asked.words and asked.file is not None:
        raise UsageError("words and --file were both given", "give one of them")
    groups = None
    if asked.file is not None:
        text, where = streams.read_data(_shipped(asked.file))
        groups = read_groups(text, Path(where).name)
    items = items_from(asked.words, asked.rows, groups)
    if not items:
        raise UsageError(
            "there are no words", "give WORD …, --row ID, or --file notebook (it ships)"
        )
    return items


def _shipped(file: str) -> str:
    """A file of one's own, or the groups that ship under a bare name, which no folder hides."""
    path, own = configs_folder() / "embed" / f"{file}.toml", Path(file)
    bare = "." not in file and "/" not in file and "\\" not in file
    mine = own.exists() and not own.is_dir()
    return str(path) if bare and not mine and path.is_file() else file


def _check(asked: Asked, items: tuple[Item, ...]) -> None:
    check_choice("format", asked.format, FORMATS)
    if asked.nearest < 0:
        raise UsageError(f"--nearest must be at least 0, got {asked.nearest}", "0 lists none")
    if asked.save is not None:
        _check_save(asked.save)
    if asked.plot is not None:
        from decodecli.render.plots.embeddings import check

        check(asked.plot, asked.plot_kind, len(items))


def _check_save(path: str) -> None:
    if Path(path).suffix.lower() != ".npz":
        raise UsageError(f"--save {path}: unknown suffix", "the file name must end in .npz")
    if not Path(path).expanduser().parent.is_dir():
        parent = Path(path).expanduser().parent
        raise UsageError(f"--save {path}: there is no folder {parent}", "make it first")


def save(path: str, report: EmbedReport, vectors: Any) -> None:
    """Write the vectors and what was computed from them as arrays.

    `vectors` (words, columns) and `cosine` (words, words) are float32; `words`, `groups` ("" for none)
    and `tokens` (how many) have an entry a word; `plane` (words, 2) with `explained_variance_ratio`
    (2,) is there for two words or more; `about` is JSON text: the model and the matrix.

    Raises:
        WriteError: the file cannot be written.
    """
    import numpy as np

    found = report.as_dict()
    about = json.dumps({key: found[key] for key in ("model", "matrix")}, ensure_ascii=False)
    arrays = {
        "vectors": vectors.astype(np.float32),
        "cosine": np.array(report.cosine, dtype=np.float32),
        "words": np.array([word.word for word in report.words]),
        "groups": np.array([word.group or "" for word in report.words]),
        "tokens": np.array([len(word.token_ids) for word in report.words]),
        "about": np.array(about),
    }
    if report.plane is not None:
        arrays["plane"] = np.array(report.plane.coordinates)
        arrays["explained_variance_ratio"] = np.array(report.plane.ratio)
    try:
        with Path(path).expanduser().open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error


def _show(asked: Asked, report: EmbedReport) -> None:
    if asked.format == "json":
        reporting.write_json(report.as_dict())
    elif asked.format in ("jsonl", "csv"):
        reporting.write_rows(report.flat(), asked.format)
    else:
        from decodecli.render.terminal.embedding_tables import embed_lines, scatter

        style = reporting.style_of(sys.stdout, report.byte_level)
        lines = embed_lines(report, style)
        if asked.plot == "-" and asked.plot_kind != "heatmap":
            lines += ["", *scatter(report, style)]
        reporting.write_lines(lines, style)
