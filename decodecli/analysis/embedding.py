"""Vectors of words from an embedding matrix, and how near they lie: cosine, plane, silhouettes.

numpy only; of the matrix only the rows of the words are kept, and one pass over it gives the norms and
the nearest tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decodecli.analysis.word_vectors import Item, Vocabulary, items_from
from decodecli.errors import LoadError, UsageError
from decodecli.models.checkpoint import find_checkpoint
from decodecli.models.embedding_weights import EmbeddingMatrices, StoredMatrix, find_embeddings
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
    vocabulary = Vocabulary(checkpoint, trust_remote_code=params.trust_remote_code)
    matrices = find_embeddings(checkpoint, vocabulary.size, output=output)
    matrix = matrices.output if output and matrices.output is not None else matrices.input
    spelt = [_spelt(item, vocabulary, matrix.rows, space) for item in items]
    vectors = _vectors(spelt, matrix)
    norms, dots = scan(matrix, vectors if nearest else vectors[:0])
    report = EmbedReport(
        model=params.model,
        revision=checkpoint.revision,
        matrix=_matrix_info(matrices, matrix, output, norms, vocabulary),
        words=tuple(
            _word(item, terms, vector, vocabulary)
            for item, terms, vector in zip(items, spelt, vectors, strict=True)
        ),
        cosine=_plain(cosine(vectors)),
        plane=plane(vectors) if len(items) > 1 else None,
        separation=_separation(items, vectors),
        nearest=_nearest(spelt, vectors, norms, dots, vocabulary, nearest) if nearest else (),
        byte_level=vocabulary.byte_level,
        notes=_notes(items, spelt, vectors, vocabulary),
    )
    return report, vectors


Terms = tuple[tuple[int, tuple[int, ...]], ...]  # sign and token ids of each word of an item


def _items(words: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Item]) -> tuple[Item, ...]:
    if isinstance(words, str):
        words = [words]
    if isinstance(words, Mapping):
        items = items_from(groups=words)
    else:
        plain = [word for word in words if isinstance(word, str)]
        items = tuple(word for word in words if isinstance(word, Item)) or items_from(plain)
    if not items:
        raise UsageError("there are no words", "give one word or more")
    return items


def _spelt(item: Item, vocabulary: Vocabulary, rows: int, space: bool | None) -> Terms:
    if item.row is None:
        return tuple((sign, vocabulary.ids(word, space)) for sign, word in item.terms)
    if not 0 <= item.row < rows:
        raise UsageError(
            f"--row {item.row} is out of range: the matrix has {rows:,} rows",
            f"rows are token ids, 0 to {rows - 1}",
        )
    return ((1, (item.row,)),)


def _own(terms: Terms) -> tuple[int, ...]:
    return tuple(token_id for _, ids in terms for token_id in ids)


def _vectors(spelt: Sequence[Terms], matrix: StoredMatrix) -> Floats:
    """One vector an item: the signed sum of its words' means, `(items, columns)`."""
    wanted = sorted({token_id for terms in spelt for token_id in _own(terms)})
    place = {token_id: index for index, token_id in enumerate(wanted)}
    try:
        rows = matrix.read(wanted).astype(np.float64)
    except IndexError as error:
        raise LoadError(
            f"the tokenizer has the id {error}, and {matrix.name} only {matrix.rows:,} rows",
            "do the tokenizer and the weights belong together?",
        ) from error
    if not np.isfinite(rows).all():
        bad = wanted[int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])]
        raise LoadError(f"row {bad} of {matrix.name} is not finite", "the weights are damaged")
    found = np.zeros((len(spelt), matrix.columns))
    for vector, terms in zip(found, spelt, strict=True):
        for sign, ids in terms:
            vector += sign * rows[[place[token_id] for token_id in ids]].mean(axis=0)
    return found


def scan(matrix: StoredMatrix, vectors: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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
    found = np.clip(directions @ directions.T, -1.0, 1.0)
    np.fill_diagonal(found, np.where(lengths[:, 0] > 0, 1.0, np.nan))
    return found


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
    found = squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T
    np.fill_diagonal(found, 0.0)
    return np.sqrt(np.maximum(found, 0.0))


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
    sizes, own = member.sum(axis=1), np.array([names.index(label) for label in labels])
    everyone = np.arange(len(labels))
    sums = distances @ member.T  # item, group
    within = sums[everyone, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[everyone, own] = np.inf
    nearest = means.min(axis=1)
    larger = np.maximum(within, nearest)
    found = np.divide(nearest - within, larger, out=np.zeros_like(larger), where=larger > 0)
    return np.where(sizes[own] > 1, found, 0.0)


def _separation(items: Sequence[Item], vectors: Floats) -> Separation | None:
    labels = [item.group for item in items]
    found = cosine(vectors)
    if None in labels or not 2 <= len(set(labels)) < len(items) or np.isnan(found).any():
        return None
    distances = 1 - found
    words = silhouettes(distances, labels)
    flat = silhouettes(_distances(np.array(plane(vectors).coordinates)), labels)
    return Separation(
        mean=float(words.mean()),
        groups={
            str(name): float(words[[label == name for label in labels]].mean())
            for name in dict.fromkeys(labels)
        },
        words=tuple(float(value) for value in words),
        plane=float(flat.mean()),
    )


def _nearest(
    spelt: Sequence[Terms],
    vectors: Floats,
    norms: NDArray[np.float32],
    dots: NDArray[np.float32],
    vocabulary: Vocabulary,
    count: int,
) -> tuple[tuple[Neighbour, ...], ...]:
    """For each vector the tokens with the highest cosine, equal ones by id; not its own tokens, not
    rows without a token or a length."""
    lengths = np.linalg.norm(vectors, axis=1)
    found = []
    for terms, products, length in zip(spelt, dots, lengths, strict=True):
        own, listed = set(_own(terms)), list[Neighbour]()
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = products / (norms * np.float32(length))
        cosines[~np.isfinite(cosines)] = -np.inf
        for index in np.argsort(-cosines, kind="stable") if length > 0 else ():
            token_id = int(index)
            piece = vocabulary.piece(token_id)
            if len(listed) == count or not np.isfinite(cosines[token_id]):
                break
            if piece is not None and token_id not in own:
                value = min(max(float(cosines[token_id]), -1.0), 1.0)
                listed.append(Neighbour(len(listed) + 1, token_id, piece, value))
        found.append(tuple(listed))
    return tuple(found)


def _word(item: Item, terms: Terms, vector: Floats, vocabulary: Vocabulary) -> WordVector:
    ids = _own(terms)
    return WordVector(
        word=item.name,
        kind=item.kind,
        group=item.group,
        token_ids=ids,
        tokens=tuple(_piece(vocabulary, token_id) for token_id in ids),
        norm=float(np.linalg.norm(vector)),
    )


def _piece(vocabulary: Vocabulary, token_id: int) -> str:
    return vocabulary.piece(token_id) or f"<id {token_id}>"


def _matrix_info(
    found: EmbeddingMatrices,
    matrix: StoredMatrix,
    output: bool,
    norms: NDArray[np.float32],
    vocabulary: Vocabulary,
) -> MatrixInfo:
    if not np.isfinite(norms).all():
        bad = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise LoadError(f"row {bad} of {matrix.name} is not finite", "the weights are damaged")
    wide = norms.astype(np.float64)
    ends = int(wide.argmin()), int(wide.argmax())
    shortest, longest = ((end, _piece(vocabulary, end)) for end in ends)
    return MatrixInfo(
        name=matrix.name,
        file=matrix.file.name,
        kind="output" if output else "input",
        tied=found.tied,
        rows=matrix.rows,
        columns=matrix.columns,
        dtype=matrix.dtype,
        norms={
            "mean": float(wide.mean()),
            "sd": float(wide.std()),
            "min": float(wide.min()),
            "max": float(wide.max()),
        },
        shortest=shortest,
        longest=longest,
    )


def _notes(
    items: Sequence[Item], spelt: Sequence[Terms], vectors: Floats, vocabulary: Vocabulary
) -> tuple[str, ...]:
    notes = []
    for item, terms, vector in zip(items, spelt, vectors, strict=True):
        if item.kind != "row" and vocabulary.has_unknown(_own(terms)):
            notes.append(f"part of {item.name!r} is the unknown token, which many words share")
        if not vector.any():
            notes.append(f"the vector of {item.name!r} is zero: it has no direction and no cosine")
    counts = [
        len(_own(terms)) for item, terms in zip(items, spelt, strict=True) if item.kind == "word"
    ]
    several = sum(count > 1 for count in counts)
    if several > len(counts) / 2:
        notes.append(
            f"{several} of {len(counts)} words take several tokens: the mean of a word's pieces says "
            "less of it than a row of its own; models with larger vocabularies have more whole words"
        )
    return tuple(notes)


def _plain(found: Floats) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in found)
