"""Vectors of words from an embedding matrix, compared: cosines, a plane, silhouettes, nearest tokens.

numpy only; of the matrix only the rows of the words are kept, and one pass over it gives the norms and
the nearest tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decodecli.analysis.word_vectors import Item, items_from, word_ids
from decodecli.errors import LoadError, UsageError
from decodecli.models.checkpoint import Checkpoint, find_checkpoint
from decodecli.models.embedding_weights import EmbeddingMatrices, StoredMatrix, find_embeddings
from decodecli.models.model_files import blamed_on
from decodecli.models.tokenizer import Tokenizer, find_tokenizer, from_file
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
Terms = tuple[tuple[int, tuple[int, ...]], ...]  # sign and token ids of each word of an item
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

    Args:
        words: words and expressions, or groups of them by name, or `Item`s.
        model: "builtin", a folder or a hub name; of its weights only the one matrix is read.
        output: the unembedding (the output layer's rows) in place of the input embeddings.
        space: whether a space before each word is meant; None: where its script has spaces.
        nearest: how many of the nearest tokens to list for each vector, by cosine, the vector's own
            tokens left out; 0 lists none.

    Raises:
        LoadError: the model, its tokenizer or its matrix is missing or cannot be read.
        UsageError: a word that is empty, given twice or unknown, a row that is not there.
    """
    items = _items(words)
    params = model if isinstance(model, LoadParams) else LoadParams(str(model))
    checkpoint = find_checkpoint(params, progress)
    tokenizer = checkpoint_tokenizer(checkpoint, trust_remote_code=params.trust_remote_code)
    size = tokenizer.backend.get_vocab_size(with_added_tokens=True)
    matrices = find_embeddings(checkpoint, size, output=output)
    matrix = matrices.output if output and matrices.output is not None else matrices.input
    terms = [_terms(item, tokenizer, matrix.rows, space) for item in items]
    vectors = _vectors(terms, matrix)
    norms, dots = scan(matrix, vectors if nearest else vectors[:0])
    vector_norms = np.linalg.norm(vectors, axis=1)
    word_vectors = tuple(
        _word_vector(item, signed, norm, tokenizer)
        for item, signed, norm in zip(items, terms, vector_norms.tolist(), strict=True)
    )
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
        with blamed_on(f"the tokenizer of {checkpoint.name}"):
            return from_file(path, checkpoint.name)
    # transformers makes a fast tokenizer of a SentencePiece model
    tokenizer = find_tokenizer(str(checkpoint.folder), trust_remote_code=trust_remote_code)
    if tokenizer.backend is None:
        raise LoadError(
            f"the tokenizer of {checkpoint.name} exists only as Python code",
            "embed needs one that save_pretrained can write as tokenizer.json",
        )
    return tokenizer


def _items(words: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Item]) -> tuple[Item, ...]:
    if isinstance(words, Mapping):
        items = items_from(groups=words)
    else:
        words = [words] if isinstance(words, str) else words
        items = tuple(word for word in words if isinstance(word, Item))
        items = items or items_from([word for word in words if isinstance(word, str)])
    if not items:
        raise UsageError("there are no words", "give one word or more")
    return items


def _terms(item: Item, tokenizer: Tokenizer, rows: int, space: bool | None) -> Terms:
    if item.row is None:
        return tuple((sign, word_ids(tokenizer, word, space)) for sign, word in item.terms)
    if not 0 <= item.row < rows:
        raise UsageError(
            f"--row {item.row} is out of range: the matrix has {rows:,} rows",
            f"rows are token ids, 0 to {rows - 1}",
        )
    return ((1, (item.row,)),)


def _vectors(items: Sequence[Terms], matrix: StoredMatrix) -> Floats:
    """One vector an item: the signed sum of its words' means, `(items, columns)`."""
    token_ids = sorted({token_id for terms in items for _, ids in terms for token_id in ids})
    if token_ids[-1] >= matrix.rows:
        raise LoadError(
            f"the tokenizer has the id {token_ids[-1]}, and {matrix.name} only {matrix.rows:,} rows",
            "do the tokenizer and the weights belong together?",
        )
    rows = matrix.read(token_ids).astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise _not_finite(token_ids[int(finite.argmin())], matrix)
    row_of = dict(zip(token_ids, rows, strict=True))
    return np.array(
        [
            sum(
                sign * np.mean([row_of[token_id] for token_id in ids], axis=0)
                for sign, ids in terms
            )
            for terms in items
        ]
    )


def _not_finite(row: int, matrix: StoredMatrix) -> LoadError:
    return LoadError(f"row {row} of {matrix.name} is not finite", "the weights are damaged")


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
    return tuple(
        tuple(None if value != value else value for value in row)
        for row in cosine(vectors).tolist()
    )


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
    x, y = (float(value) for value in variances[:2])
    return Plane(
        coordinates=tuple((float(a), float(b)) for a, b in axes),
        variance=(x, y),
        ratio=(x / total, y / total) if total > 0 else (0.0, 0.0),
        dimensions=vectors.shape[1],
        distances=_correlation(_distances(axes), _distances(vectors)),
    )


def _distances(vectors: Floats) -> Floats:
    """Euclidean distance of each pair of rows, `(n, n)`."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    squared = squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(np.maximum(squared, 0.0))


def _correlation(one: Floats, other: Floats) -> float | None:
    upper = np.triu_indices(len(one), k=1)
    a, b = one[upper], other[upper]
    if a.size < 2 or np.ptp(a) <= 1e-12 * a.max() or np.ptp(b) <= 1e-12 * b.max():
        return None
    return float(np.corrcoef(a, b)[0, 1])


def silhouettes(distances: Floats, labels: Sequence[object]) -> Floats:
    """The silhouette of each item, `(n,)` in [−1, 1]: how much nearer its own group is than the next
    (Rousseeuw 1987). 0 for the only member of a group.

    Args:
        distances: `(n, n)`, 0 on the diagonal.

    Raises:
        UsageError: fewer than two groups, or as many as items.
    """
    names = list(dict.fromkeys(labels))
    if not 2 <= len(names) < len(labels):
        raise UsageError("silhouettes need two groups or more, and one of two words", "see --file")
    member = np.array([[label == name for label in labels] for name in names], dtype=np.float64)
    sizes, group = member.sum(axis=1), np.array([names.index(label) for label in labels])
    everyone = np.arange(len(labels))
    sums = distances @ member.T  # item, group
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


def _word_vector(item: Item, terms: Terms, norm: float, tokenizer: Tokenizer) -> WordVector:
    token_ids = tuple(token_id for _, ids in terms for token_id in ids)
    tokens = tuple(_piece(tokenizer, token_id) for token_id in token_ids)
    return WordVector(item.name, item.kind, item.group, token_ids, tokens, norm)


def _piece(tokenizer: Tokenizer, token_id: int) -> str:
    return tokenizer.piece(token_id) or f"<id {token_id}>"


def _matrix_info(
    matrices: EmbeddingMatrices,
    matrix: StoredMatrix,
    output: bool,
    norms: Floats32,
    tokenizer: Tokenizer,
) -> MatrixInfo:
    finite = np.isfinite(norms)
    if not finite.all():
        raise _not_finite(int(finite.argmin()), matrix)
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
