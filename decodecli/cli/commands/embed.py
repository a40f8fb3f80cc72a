"""`decodecli embed`: words as rows of the embedding matrix, and how near they lie."""

from __future__ import annotations

from typing import Annotated

import typer

from decodecli.cli import options as o

FORMATS = ("table", "json", "jsonl", "csv")
_SETTINGS = ("model", "revision", "trust_remote_code", "quiet", "verbose", "config")

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="WORD…",
        show_default=False,
        help="Words, and expressions such as 'king - man + woman'.",
    ),
]
Groups = Annotated[
    str | None,
    o.option(
        "--file",
        "-f",
        panel=o.INPUT,
        default=None,
        metavar="FILE",
        help='Groups of words from a TOML file of lines like animals = ["cat", "dog"]; '
        "two ship: notebook (the notebook's twenty words) and categories.",
    ),
]
Row = Annotated[
    list[int] | None,
    o.option(
        "--row",
        panel=o.INPUT,
        default=None,
        metavar="ID",
        help="The matrix row of a token id as it is; repeatable.",
    ),
]
Space = Annotated[
    bool | None,
    o.switch(
        "--space/--no-space",
        panel=o.INPUT,
        default="where the word's script is written with spaces",
        help="Mean each word with a space before it.",
    ),
]
OutputEmbeddings = Annotated[
    bool | None,
    o.switch(
        "--output-embeddings",
        panel=o.MODEL,
        help="The output layer's matrix (unembedding) in place of the input's.",
    ),
]
Nearest = Annotated[
    int | None,
    o.option(
        "--nearest",
        panel=o.OUTPUT,
        default="0, none",
        metavar="N",
        help="The N tokens nearest to each word by cosine, its own left out.",
    ),
]
Save = Annotated[
    str | None,
    o.option(
        "--save",
        panel=o.OUTPUT,
        default=None,
        metavar="FILE",
        help="Vectors, cosines and the plane as arrays: .npz.",
    ),
]
PlotKind = Annotated[
    str | None,
    o.option(
        "--plot-kind",
        panel=o.OUTPUT,
        default="auto: both; scatter in the terminal",
        help="What to draw.",
        **o.choices("auto", "heatmap", "scatter", "both"),
    ),
]


def embed(
    words: Words = None,
    file: Groups = None,
    row: Row = None,
    space: Space = None,
    model: o.Model = None,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = None,
    output_embeddings: OutputEmbeddings = None,
    nearest: Nearest = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    save: Save = None,
    plot: o.Plot = None,
    plot_kind: PlotKind = None,
    quiet: o.Quiet = None,
    verbose: o.Verbose = None,
    color: o.Color = None,
    debug: o.Debug = None,
    config: o.Config = None,
) -> None:
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
    given = locals()
    flags = {name: given[name] for name in _SETTINGS}
    from decodecli.cli.commands import embed_run as embedding
    from decodecli.config import resolve

    embedding.run(
        embedding.Asked(
            effective=resolve(flags),
            words=tuple(words or ()),
            file=file,
            rows=tuple(row or ()),
            space=space,
            output=bool(output_embeddings),
            nearest=nearest or 0,
            format=format or "table",
            save=save,
            plot=plot,
            plot_kind=plot_kind or "auto",
        )
    )
