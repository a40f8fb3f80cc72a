"""What `embed` returns: vectors of words, how near they are to each other, and what lies near them.

Plain values. Cosines are in [−1, 1] and None where a vector has no length; norms are Euclidean;
variances are sums of squares over n − 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from decodecli.records.display import Displayed, field_values


@dataclass(frozen=True, slots=True)
class MatrixInfo:
    """The matrix that the vectors were read from.

    kind: "input" or "output" embeddings; tied: whether both are this one matrix.
    norms: mean, sd (over all rows, dividing by their number), min and max of the rows' norms.
    shortest, longest: the row with the smallest norm and that with the largest, and their pieces.
    """

    name: str
    file: str
    kind: str
    tied: bool
    rows: int
    columns: int
    dtype: str
    norms: dict[str, float]
    shortest: tuple[int, str]
    longest: tuple[int, str]

    def as_dict(self) -> dict[str, Any]:
        ends = {"shortest": self.shortest, "longest": self.longest}
        names = ("token_id", "token")
        return asdict(self) | {key: dict(zip(names, row, strict=True)) for key, row in ends.items()}


@dataclass(frozen=True, slots=True)
class WordVector:
    """One vector: the mean of its tokens' rows, or for an expression the sum of such means.

    kind: "word", "row" or "expression". group: None outside groups. norm: of the vector.
    """

    word: str
    kind: str
    group: str | None
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    norm: float

    def as_dict(self) -> dict[str, Any]:
        pairs = zip(self.token_ids, self.tokens, strict=True)
        values = field_values(self)
        del values["token_ids"]
        return values | {"tokens": [{"token_id": k, "token": token} for k, token in pairs]}


@dataclass(frozen=True, slots=True)
class Plane:
    """The first two principal components of the vectors.

    coordinates: one pair a vector. variance: along each component. ratio: its share of the whole.
    dimensions: of the space that was left behind.
    distances: the correlation (Pearson) of the pairwise distances in the plane with those in the
        space; None for fewer than three vectors, or where either are all equal.
    """

    coordinates: tuple[tuple[float, float], ...]
    variance: tuple[float, float]
    ratio: tuple[float, float]
    dimensions: int
    distances: float | None

    @property
    def kept(self) -> float:
        """The share of the variance that both components keep."""
        return sum(self.ratio)

    def as_dict(self) -> dict[str, Any]:
        return {
            "explained_variance": list(self.variance),
            "explained_variance_ratio": list(self.ratio),
            "kept": self.kept,
            "dimensions": self.dimensions,
            "distance_correlation": self.distances,
            "coordinates": [list(pair) for pair in self.coordinates],
        }


@dataclass(frozen=True, slots=True)
class Separation:
    """How well the groups stand apart: mean silhouettes (Rousseeuw 1987), −1 to 1.

    mean, groups, words: by cosine distance in the whole space. plane: the mean by Euclidean distance
    in the plane of the picture.
    """

    mean: float
    groups: dict[str, float]
    words: tuple[float, ...]
    plane: float

    def as_dict(self) -> dict[str, Any]:
        return {"metric": "cosine", **asdict(self), "words": list(self.words)}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A token near a vector; `rank` 1 is the nearest."""

    rank: int
    token_id: int
    token: str
    cosine: float


@dataclass(frozen=True, repr=False)
class EmbedReport(Displayed):
    """Vectors of one embedding matrix, compared.

    cosine: `cosine[i][j]` of vectors i and j. plane: None for fewer than two vectors. separation:
    None unless there are two groups or more, and fewer than vectors. nearest: one list a vector, or
    none at all when they were not asked for. `notes` are sentences a person should read with it.
    """

    model: str
    revision: str | None
    matrix: MatrixInfo
    words: tuple[WordVector, ...]
    cosine: tuple[tuple[float | None, ...], ...]
    plane: Plane | None = None
    separation: Separation | None = None
    nearest: tuple[tuple[Neighbour, ...], ...] = ()
    byte_level: bool = False
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups' names in order."""
        return tuple(dict.fromkeys(word.group for word in self.words if word.group is not None))

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        nearest = [
            {"word": word.word, "tokens": [asdict(neighbour) for neighbour in neighbours]}
            for word, neighbours in zip(self.words, self.nearest, strict=False)
        ]
        return {
            "command": "embed",
            "model": {"name": self.model, "revision": self.revision},
            "matrix": self.matrix.as_dict(),
            "words": [word.as_dict() for word in self.words],
            "cosine": [list(row) for row in self.cosine],
            "pca": None if self.plane is None else self.plane.as_dict(),
            "silhouette": None if self.separation is None else self.separation.as_dict(),
            **({"nearest": nearest} if self.nearest else {}),
            "notes": list(self.notes),
        }

    def flat(self) -> list[dict[str, Any]]:
        """What CSV, JSONL and pandas hold: a record a neighbour when they were asked for, else a
        record a vector with its cosine to each of them."""
        if self.nearest:
            return [
                {"word": word.word, **asdict(neighbour)}
                for word, neighbours in zip(self.words, self.nearest, strict=True)
                for neighbour in neighbours
            ]
        rows = []
        for index, word in enumerate(self.words):
            x, y = (None, None) if self.plane is None else self.plane.coordinates[index]
            cosines = zip(self.words, self.cosine[index], strict=True)
            rows.append(
                {
                    **field_values(word, ("word", "kind", "group")),
                    "token_ids": " ".join(map(str, word.token_ids)),
                    "norm": word.norm,
                    "pc1": x,
                    "pc2": y,
                    "silhouette": None if self.separation is None else self.separation.words[index],
                    **{f"cosine {other.word}": cosine for other, cosine in cosines},
                }
            )
        return rows
