"""`decodecli embed`: words as rows of the embedding matrix, and how near they lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import INPUT, MODEL, OUTPUT, Argument, Option, Request, command
from decodecli.cli.loading_line import loading_line
from decodecli.cli.output import TABLE_FORMATS, write_report
from decodecli.errors import LoadError, PickledWeightsError, UsageError, WriteError
from decodecli.library_logging import quiet_libraries
from decodecli.ranges import check_positive

if TYPE_CHECKING:
    from decodecli.analysis.word_vectors import Item
    from decodecli.records.embedding import EmbedReport
    from decodecli.render.terminal.step_table import Style

WORDS = Argument(
    "words", "WORD…", "Words, and expressions such as 'king - man + woman'.", several=True
)
GROUPS = o.FILE.but(
    help='Groups of words from a TOML file of lines like animals = ["cat", "dog"]; '
    "two ship: notebook (the notebook's twenty words) and categories."
)
ROW = Option(
    "row", int, INPUT, "The matrix row of a token id as it is; repeatable.", "ID",
    several=True
)  # fmt: skip
SPACE = Option(
    "space", bool, INPUT, "Mean each word with a space before it.",
    default="where the word's script is written with spaces", flags="--space/--no-space"
)  # fmt: skip
OUTPUT_EMBEDDINGS = Option(
    "output_embeddings", bool, MODEL, "The output layer's matrix (unembedding) in place of the input's."
)  # fmt: skip
NEAREST = Option(
    "nearest", int, OUTPUT, "The N tokens nearest to each word by cosine, its own left out.",
    "N", "0, none"
)  # fmt: skip
SAVE = Option("save", str, OUTPUT, "Vectors, cosines and the plane as arrays: .npz.", "FILE")
PLOT_KIND = o.PLOT_KIND.but(
    default="auto: both; scatter in the terminal", choices=("auto", "heatmap", "scatter", "both")
)


@dataclass(frozen=True, eq=False, repr=False)
class EmbedRequest(Request):
    """Everything that `embed` is told, checked.

    Raises:
        UsageError: a value out of range, or a file that cannot be written.
    """

    words: tuple[str, ...] = ()
    file: str | None = None
    row: tuple[int, ...] = ()
    space: bool | None = None
    output_embeddings: bool = False
    nearest: int = 0
    format: str = "table"
    save: str | None = None
    plot: str | None = None
    plot_kind: str = "auto"

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The words and expressions, each with its group."""
        from decodecli.analysis.word_vectors import items_from, read_groups

        groups = None
        if self.file is not None:
            if self.words:
                raise UsageError("words and --file were both given", "give one of them")
            text, name = streams.read_data(_shipped(self.file))
            groups = read_groups(text, Path(name).name)
        items = items_from(self.words, self.row, groups)
        if not items:
            raise UsageError(
                "there are no words", "give WORD …, --row ID, or --file notebook (it ships)"
            )
        return items

    def __post_init__(self) -> None:
        _ = self.items, self.load, self.output
        check_positive("nearest", self.nearest, "0 lists none", lowest=0)
        if self.save is not None:
            path = Path(self.save)
            if path.suffix.lower() != ".npz":
                raise UsageError(f"--save {path}: unknown suffix", "the file name must end in .npz")
            folder = path.expanduser().parent
            if not folder.is_dir():
                raise UsageError(f"--save {path}: there is no folder {folder}", "make it first")
        if self.plot is not None:
            from decodecli.render.plots.embeddings import check

            check(self.plot, self.plot_kind, len(self.items))


@command(
    *(WORDS, GROUPS, ROW, SPACE, o.MODEL_NAME, o.REVISION, o.TRUST_REMOTE_CODE),
    *(OUTPUT_EMBEDDINGS, NEAREST, o.format_of(*TABLE_FORMATS), SAVE, o.PLOT, PLOT_KIND),
    *(o.QUIET, o.VERBOSE, o.COLOR, o.DEBUG, o.CONFIG_FILE),
    request=EmbedRequest,
)
def embed(request: EmbedRequest) -> None:
    """See words as the model does before its first layer: rows of its embedding matrix, compared.

    A word's vector is the mean of its tokens' rows. Shown are the matrix and its
    norms, the cosine similarity of each pair, how much two principal components
    keep, and how well groups separate. Only that matrix is read, not the model.

    [bold]Examples[/bold]

      decodecli embed cat dog Japan France

      decodecli embed king queen "king - man + woman" --nearest 10

      decodecli embed --file notebook --plot words.png

      decodecli embed -m mistralai/Mistral-7B-v0.1 --file groups.toml --format json
    """
    from decodecli.render.terminal.embedding_tables import embed_lines, scatter

    output, params = request.output, request.load
    with quiet_libraries(output.verbose), loading_line(params.model, output) as progress:
        from decodecli.analysis import embedding

        try:
            report, vectors = embedding.embed(
                request.items,
                params,
                output=request.output_embeddings,
                space=request.space,
                nearest=request.nearest,
                progress=progress,
            )
        except PickledWeightsError as error:  # --allow-pickle is not an option here
            raise LoadError(error.message, "convert them to safetensors") from error
    if request.save is not None:
        _save(request.save, report, vectors)
    if request.plot not in (None, "-"):
        from decodecli.render.plots.embeddings import draw

        draw(report, str(request.plot), request.plot_kind)
        streams.Notices(request.output.quiet).tell(f"the words are drawn in {request.plot}")
    streams.Notices(output.quiet).tell_all((*request.effective.notices, *report.notes))

    def lines(style: Style) -> list[str]:
        rows = list(embed_lines(report, style))
        if request.plot == "-" and request.plot_kind != "heatmap":
            rows += ["", *scatter(report, style)]
        return rows

    write_report(report, request.format, lines, report.byte_level)


def _shipped(file: str) -> str:
    """A file of the user's, or the groups that ship under a bare name, which no folder hides."""
    from decodecli.config import configs_folder

    shipped = configs_folder() / "embed" / f"{file}.toml"
    is_bare = not any(sign in file for sign in "./\\")
    exists = Path(file).exists() and not Path(file).is_dir()
    return str(shipped) if is_bare and not exists and shipped.is_file() else file


def _save(path: str, report: EmbedReport, vectors: Any) -> None:
    """Write the vectors and what was computed from them as arrays.

    `vectors` (words, columns) and `cosine` (words, words) are float32; `words`, `groups` ("" for none)
    and `tokens` (how many) have an entry a word; `plane` (words, 2) with `explained_variance_ratio`
    (2,) is there for two words or more; `about` is JSON text: the model and the matrix.

    Raises:
        WriteError: the file cannot be written.
    """
    import json

    import numpy as np

    values = report.as_dict()
    about = json.dumps({key: values[key] for key in ("model", "matrix")}, ensure_ascii=False)
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
