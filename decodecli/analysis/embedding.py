"""Vectors of words from an embedding matrix, compared: cosines, a plane, silhouettes, nearest tokens.

numpy only; of the matrix only the rows of the words are kept, and one pass over it gives the norms and
the nearest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodecli.analysis.word_vectors import Item, items_from, word_ids
from decodecli.errors import LoadError, UsageError
from decodecli.models.checkpoint import Checkpoint, find_checkpoint
from decodecli.models.embedding_weights import EmbeddingMatrices, StoredMatrix, find_embeddings
from decodecli.models.model_files import blamed_on
from decodecli.models.tokenizer import LightTokenizer, Tokenizer, find_tokenizer, wrap
from decodecli.records.embedding import (
    EmbedReport,
    MatrixInfo,
    Neighbour,
    Plane,
    Separation,
    WordVector,
)
from decodecli.settings import LoadParams

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Progress = Callable[[str], None]


def embed(
    words: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Item],
    model: str | Path | LoadParams = "builtin",
    *,
    output: bool = False,
    space: bool | None = None,
    nearest: int = 0,
    progress: Progress = lambda _: None,
) -> tuple[EmbedReport, Floats]:
    """Vectors of words in a model's embedding matrix, compared; and the vectors, `(words, columns)`.

    >>> report, vectors = embed(["king", "queen", "king - man + woman"], nearest=5)

    The arguments are those of `decodecli.embed`; `words` may be `Item`s too. Of the weights only the
    one matrix is read.

    Raises:
        LoadError: the model, its tokenizer or its matrix is missing or cannot be read.
        UsageError: a word that is empty, given twice or unknown, a row that is not there.
    """
    if isinstance(words, Mapping):
        items = items_from(groups=words)
    else:
        words = [words] if isinstance(words, str) else words
        items = tuple(word for word in words if isinstance(word, Item))
        items = items or items_from([word for word in words if isinstance(word, str)])
    if not items:
        raise UsageError("there are no words", "give one word or more")
    params = model if isinstance(model, LoadParams) else LoadParams(str(model))
    checkpoint = find_checkpoint(params, progress)
    tokenizer = checkpoint_tokenizer(checkpoint, trust_remote_code=params.trust_remote_code)
    size = tokenizer.backend.get_vocab_size(with_added_tokens=True)
    matrices = find_embeddings(checkpoint, size, output=output)
    matrix = matrices.output if output and matrices.output is not None else matrices.input
    word_vectors, vectors = _word_vectors(items, tokenizer, matrix, space)
    norms, dots = scan(matrix, vectors if nearest else vectors[:0])
    report = EmbedReport(
        model=params.model,
        revision=checkpoint.revision,
        matrix=_matrix_info(matrices, matrix, output, norms, tokenizer),
        words=word_vectors,
        cosine=cosine_rows(vectors),
        plane=plane(vectors) if len(items) > 1 else None,
        separation=separation([item.group for item in items], vectors),
        nearest=tuple(
            _nearest(word, products, norms, tokenizer, nearest)
            for word, products in zip(word_vectors, dots, strict=False)
        ),
        byte_level=tokenizer.kind == "byte_level",
        notes=_notes(word_vectors, tokenizer),
    )
    return report, vectors


def checkpoint_tokenizer(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Tokenizer:
    """A checkpoint's tokenizer, from its tokenizer.json as it stands where it has one.

    Raises:
        LoadError: it cannot be read, or exists only as Python code.
    """
    path = checkpoint.folder / "tokenizer.json"
    if path.is_file():
        with blamed_on(f"the tokenizer of {checkpoint.name}", folder=checkpoint.folder):
            return wrap(LightTokenizer(path, {}), checkpoint.name)
    # transformers makes a fast tokenizer of a SentencePiece model
    tokenizer = find_tokenizer(str(checkpoint.folder), trust_remote_code=trust_remote_code)
    if tokenizer.backend is None:
        raise LoadError(
            f"the tokenizer of {checkpoint.name} exists only as Python code",
            "embed needs one that save_pretrained can write as tokenizer.json",
        )
    return tokenizer


def _word_vectors(
    items: Sequence[Item], tokenizer: Tokenizer, matrix: StoredMatrix, space: bool | None
) -> tuple[tuple[WordVector, ...], Floats]:
    """The items' tokens, and a vector each: the signed sum of its words' means, `(items, columns)`."""
    terms: list[list[tuple[int, tuple[int, ...]]]] = []  # of each item: its words' signs and ids
    for item in items:
        if item.row is None:
            terms.append([(sign, word_ids(tokenizer, word, space)) for sign, word in item.terms])
        elif 0 <= item.row < matrix.rows:
            terms.append([(1, (item.row,))])
        else:
            raise UsageError(
                f"--row {item.row} is out of range: the matrix has {matrix.rows:,} rows",
                f"rows are token ids, 0 to {matrix.rows - 1}",
            )
    token_ids = [tuple(i for _, ids in words for i in ids) for words in terms]
    needed = sorted({token_id for ids in token_ids for token_id in ids})
    if needed[-1] >= matrix.rows:
        raise LoadError(
            f"the tokenizer has the id {needed[-1]}, and {matrix.name} only {matrix.rows:,} rows",
            "do the tokenizer and the weights belong together?",
        )
    rows = matrix.read(needed).astype(np.float64)
    _check_finite(rows, needed, matrix)
    row_of = dict(zip(needed, rows, strict=True))
    vectors = np.array(
        [
            sum(sign * np.mean([row_of[i] for i in ids], axis=0) for sign, ids in words)
            for words in terms
        ]
    )
    word_vectors = []
    for item, ids, norm in zip(items, token_ids, np.linalg.norm(vectors, axis=1), strict=True):
        pieces = tuple(_piece(tokenizer, token_id) for token_id in ids)
        word_vectors.append(WordVector(item.name, item.kind, item.group, ids, pieces, float(norm)))
    return tuple(word_vectors), vectors


def _check_finite(values: NDArray[Any], token_ids: Sequence[int], matrix: StoredMatrix) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        row = token_ids[int(finite.argmin())]
        raise LoadError(f"row {row} of {matrix.name} is not finite", "the weights are damaged")


def scan(matrix: StoredMatrix, vectors: Floats) -> tuple[Floats32, Floats32]:
    """One pass over a matrix: the norm of each row, `(rows,)`, and its products with some vectors,
    `(vectors, rows)`, both float32."""
    norms = np.empty(matrix.rows, dtype=np.float32)
    dots = np.empty((len(vectors), matrix.rows), dtype=np.float32)
    narrow = vectors.astype(np.float32)
    for start, rows in matrix.chunks():
        end = start + len(rows)
        norms[start:end] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        if len(vectors):
            dots[:, start:end] = narrow @ rows.T
    return norms, dots


def cosine(vectors: Floats) -> Floats:
    """Cosine similarity of each pair of rows, `(n, n)`, in [−1, 1]; NaN for a vector of length 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        directions = vectors / lengths
    cosines = np.clip(directions @ directions.T, -1.0, 1.0)
    np.fill_diagonal(cosines, np.where(lengths[:, 0] > 0, 1.0, np.nan))
    return cosines


def cosine_rows(vectors: Floats) -> tuple[tuple[float | None, ...], ...]:
    """`cosine` as plain values, None for NaN."""
    rows = cosine(vectors).tolist()
    return tuple(tuple(None if math.isnan(value) else value for value in row) for row in rows)


def plane(vectors: Floats) -> Plane:
    """The first two principal components, by the singular values of the centred vectors.

    A component points to where the vector farthest along it lies, so that pictures repeat.

    Raises:
        UsageError: fewer than two vectors.
    """
    if len(vectors) < 2:
        raise UsageError("a plane needs two words or more", "give another word")
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    sizes[sizes <= 1e-12 * sizes.max(initial=0.0)] = 0.0  # rounding noise
    axes = left[:, :2] * sizes[:2]
    axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    variances = np.pad(sizes**2, (0, 2)) / (len(vectors) - 1)
    total = float(variances.sum())
    for axis in axes.T:
        if axis[np.argmax(np.abs(axis))] < 0:
            axis *= -1
    x, y = variances[:2].tolist()
    pairs = np.triu_indices(len(vectors), k=1)
    flat, full = _distances(axes)[pairs], _distances(vectors)[pairs]
    all_equal = any(np.ptp(side) <= 1e-12 * side.max() for side in (flat, full))
    return Plane(
        coordinates=tuple((float(a), float(b)) for a, b in axes),
        variance=(x, y),
        ratio=(x / total, y / total) if total > 0 else (0.0, 0.0),
        dimensions=vectors.shape[1],
        distances=None if all_equal else float(np.corrcoef(flat, full)[0, 1]),
    )


def _distances(vectors: Floats) -> Floats:
    """Euclidean distance of each pair of rows, `(n, n)`."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    squared = squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(np.maximum(squared, 0.0))


def silhouettes(distances: Floats, labels: Sequence[Any]) -> Floats:
    """The silhouette of each item, `(n,)` in [−1, 1]: how much nearer its own group is than the next
    (Rousseeuw 1987). 0 for the only member of a group.

    Args:
        distances: `(n, n)`, 0 on the diagonal.

    Raises:
        UsageError: fewer than two groups, or as many as items.
    """
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not 2 <= len(sizes) < len(labels):
        raise UsageError("silhouettes need two groups or more, and one of two words", "see --file")
    everyone = np.arange(len(labels))
    sums = distances @ np.eye(len(sizes))[group]  # item, group
    within = sums[everyone, group] / np.maximum(sizes[group] - 1, 1)
    means = sums / sizes
    means[everyone, group] = np.inf
    nearest = means.min(axis=1)
    larger = np.maximum(within, nearest)
    values = np.divide(nearest - within, larger, out=np.zeros_like(larger), where=larger > 0)
    return np.where(sizes[group] > 1, values, 0.0)


def separation(groups: Sequence[str | None], vectors: Floats) -> Separation | None:
    """How well the groups of vectors, `(n, columns)`, stand apart; None where silhouettes need more."""
    cosines = cosine(vectors)
    if None in groups or not 2 <= len(set(groups)) < len(groups) or np.isnan(cosines).any():
        return None
    words = silhouettes(1 - cosines, groups)
    flat = silhouettes(_distances(np.array(plane(vectors).coordinates)), groups)
    return Separation(
        mean=float(words.mean()),
        groups={
            str(name): float(words[[group == name for group in groups]].mean())
            for name in dict.fromkeys(groups)
        },
        words=tuple(words.tolist()),
        plane=float(flat.mean()),
    )


def _nearest(
    word: WordVector, products: Floats32, norms: Floats32, tokenizer: Tokenizer, count: int
) -> tuple[Neighbour, ...]:
    """The tokens with the highest cosine, equal ones by id; not the vector's own tokens, not rows
    without a token or a length. `products` are the vector's with every row, `(rows,)`."""
    if not word.norm:
        return ()
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = products / (norms * np.float32(word.norm))
    cosines[~np.isfinite(cosines)] = -np.inf
    cosines[list(word.token_ids)] = -np.inf
    neighbours: list[Neighbour] = []
    for token_id in np.argsort(-cosines, kind="stable").tolist():
        if len(neighbours) == count or not np.isfinite(cosines[token_id]):
            break
        piece = tokenizer.piece(token_id)
        if piece is not None:
            cosine = min(max(float(cosines[token_id]), -1.0), 1.0)
            neighbours.append(Neighbour(len(neighbours) + 1, token_id, piece, cosine))
    return tuple(neighbours)


def _piece(tokenizer: Tokenizer, token_id: int) -> str:
    return tokenizer.piece(token_id) or f"<id {token_id}>"


def _matrix_info(
    matrices: EmbeddingMatrices,
    matrix: StoredMatrix,
    output: bool,
    norms: Floats32,
    tokenizer: Tokenizer,
) -> MatrixInfo:
    _check_finite(norms, range(matrix.rows), matrix)
    wide = norms.astype(np.float64)
    shortest, longest = int(wide.argmin()), int(wide.argmax())
    statistics = {"mean": wide.mean(), "sd": wide.std(), "min": wide.min(), "max": wide.max()}
    return MatrixInfo(
        name=matrix.name,
        file=matrix.file.name,
        kind="output" if output else "input",
        tied=matrices.tied,
        rows=matrix.rows,
        columns=matrix.columns,
        dtype=matrix.dtype,
        norms={name: float(value) for name, value in statistics.items()},
        shortest=(shortest, _piece(tokenizer, shortest)),
        longest=(longest, _piece(tokenizer, longest)),
    )


def _notes(vectors: Sequence[WordVector], tokenizer: Tokenizer) -> tuple[str, ...]:
    notes = []
    for vector in vectors:
        if vector.kind != "row" and tokenizer.unknown_id in vector.token_ids:
            notes.append(f"part of {vector.word!r} is the unknown token, which many words share")
        if not vector.norm:
            notes.append(
                f"the vector of {vector.word!r} is zero: it has no direction and no cosine"
            )
    counts = [len(vector.token_ids) for vector in vectors if vector.kind == "word"]
    several = sum(count > 1 for count in counts)
    if several > len(counts) / 2:
        notes.append(
            f"{several} of {len(counts)} words take several tokens: the mean of a word's pieces says "
            "less of it than a row of its own; models with larger vocabularies have more whole words"
        )
    return tuple(notes)
