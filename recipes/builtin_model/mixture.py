"""The stream of training tokens: whole documents, drawn from the sources by weight, end to end.

A document is `<s> text </s>`. `<s>` says that a text starts here, so a story without it begins at
a sentence in the middle; tales and facts without it stay whole, so that prompts work either way but
not alike. The parts of a long tale have `<s>` only at its start and `</s>` only at its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from recipes.builtin_model.prepare import Document
from recipes.builtin_model.tokenizer import BOS_ID, EOS_ID

# share of documents with `<s>`
BOS_SHARE = {"stories": 0.85, "tales": 0.4, "storybooks": 0.4, "fables": 0.4, "facts": 0.6}
# share of documents' tokens from each group: at the start of the training, and at its end
WEIGHTS = {
    "stories": (0.78, 0.83),
    "tales": (0.05, 0.02),
    "storybooks": (0.02, 0.01),
    "fables": (0.01, 0.01),
    "facts": (0.14, 0.13),
}
GROUPS = {
    "tinystories": "stories",
    "tinystories-recased": "stories",
    "tinystories-unsplit": "stories",
    "tinystories-reopened": "stories",
    "fairytales": "tales",
    "books": "tales",
}


def _sentence_marks(tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """For every id: whether its piece can end a sentence, and whether it can begin a text."""
    pieces = [tokenizer.id_to_token(i) or "" for i in range(tokenizer.get_vocab_size())]
    ends = [piece.endswith((".", "!", "?", '."', '!"', '?"')) for piece in pieces]
    begins = [piece.startswith("▁") and piece[1:2].isupper() for piece in pieces]
    return np.array(ends), np.array(begins)


class Mixture:
    """Endless batches of token ids; `state()` and `restore()` let a training be taken up again."""

    def __init__(self, documents: Iterable[Document], tokenizer: Tokenizer, seed: int = 0) -> None:
        chosen = [document for document in documents if not document.heldout]
        encoded = tokenizer.encode_batch([d.text for d in chosen], add_special_tokens=False)
        self.groups: dict[str, list[tuple[np.ndarray, bool, bool]]] = {}
        for document, encoding in zip(chosen, encoded, strict=True):
            group = GROUPS.get(document.source, document.source)
            ids = np.array(encoding.ids, dtype=np.uint16)
            self.groups.setdefault(group, []).append((ids, document.start, document.end))
        self.lengths = {
            group: float(np.mean([len(ids) + 2 for ids, _, _ in rows]))
            for group, rows in self.groups.items()
        }
        self._ends, self._begins = _sentence_marks(tokenizer)
        self.random = np.random.default_rng(seed)
        self.queues: dict[str, list[int]] = {group: [] for group in self.groups}
        self.buffer = np.zeros(0, dtype=np.uint16)
        self.drawn = dict.fromkeys(self.groups, 0)

    def batch(self, rows: int, length: int, progress: float) -> np.ndarray:
        """The next `(rows, length + 1)` ids; each row's last id is the next row's first."""
        need = rows * length + 1
        pieces = [self.buffer]
        have = len(self.buffer)
        while have < need:
            pieces.append(self._document(progress))
            have += len(pieces[-1])
        stream = np.concatenate(pieces)
        self.buffer = stream[need - 1 :]
        starts = np.arange(rows)[:, None] * length + np.arange(length + 1)[None, :]
        return stream[starts].astype(np.int64)

    def _document(self, progress: float) -> np.ndarray:
        names = list(self.groups)
        weights = np.array([self._weight(name, progress) for name in names])
        name = names[self.random.choice(len(names), p=weights / weights.sum())]
        if not self.queues[name]:
            self.queues[name] = self.random.permutation(len(self.groups[name])).tolist()
        ids, start, end = self.groups[name][self.queues[name].pop()]
        bos = [BOS_ID] if start and self.random.random() < BOS_SHARE.get(name, 0.7) else []
        if name == "stories" and start and not bos:
            ids = self._from_the_middle(ids)
        self.drawn[name] += len(ids)
        return np.concatenate([bos, ids, [EOS_ID] if end else []]).astype(np.uint16)

    def _from_the_middle(self, ids: np.ndarray) -> np.ndarray:
        """The rest of a story from a sentence in its first half, or all of it if there is none."""
        half = ids[: len(ids) // 2]
        places = np.flatnonzero(self._ends[half[:-1]] & self._begins[half[1:]]) + 1
        return ids[self.random.choice(places) :] if len(places) else ids

    def _weight(self, name: str, progress: float) -> float:
        first, last = WEIGHTS.get(name, (0.01, 0.01))
        return (first + (last - first) * progress) / self.lengths[name]

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on with the very next token."""
        return {
            "random": self.random.bit_generator.state,
            "queues": {name: list(queue) for name, queue in self.queues.items()},
            "buffer": self.buffer.tolist(),
            "drawn": dict(self.drawn),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; documents that are no longer there are passed over."""
        self.random.bit_generator.state = state["random"]
        self.queues = {
            name: [i for i in state["queues"][name] if i < len(rows)]
            for name, rows in self.groups.items()
        }
        self.buffer = np.array(state["buffer"], dtype=np.uint16)
        self.drawn = dict(state["drawn"])
