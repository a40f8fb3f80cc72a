"""A grammar that the text must keep to, by llguidance: which tokens it rules out at a step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from decodecli.errors import DecodeError, LoadError, MissingLibraryError, UsageError
from decodecli.models.model_files import first_line
from decodecli.models.time_limit import within
from decodecli.ranges import split_constraint
from decodecli.text_files import parse_json, read_file

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel

_SECONDS = 20.0
_LARGEST = 2**20  # bytes of a grammar or schema


class Constraint:
    """What a grammar rules out, by the tokens so far.

    words: as `SamplingParams.constraint`. The text that must match is that of the tokens behind the first
    `prompt_length`, the space that their pieces begin with included.

    Raises:
        MissingLibraryError: llguidance is not installed.
        UsageError: the grammar is none, or allows nothing.
        LoadError: llguidance cannot read the model's tokenizer.
    """

    def __init__(self, lm: LanguageModel, words: str, prompt_length: int) -> None:
        try:
            import llguidance
        except ImportError:
            raise MissingLibraryError(
                "--constrain needs llguidance, which is not installed",
                "pip install 'decodecli[constrain]'",
            ) from None
        self._start, self._vocab = prompt_length, lm.info.vocab_size
        self._eos = tuple(sorted(lm.eos_ids))
        tokenizer = _tokenizer(lm)
        grammar = _grammar(words)
        what = f"--constrain {words if len(words) <= 60 else words[:59] + '…'}"
        self._matcher = within(
            _SECONDS, lambda: llguidance.LLMatcher(tokenizer, grammar, log_level=0), what
        )
        if self._matcher.is_error():
            problem = first_line(Exception(self._matcher.get_error()))
            raise UsageError(f"{what} cannot be used: {problem}", "mend it, or leave it out")
        self._consumed: list[int] = []
        self._known: tuple[list[int], Tensor] | None = None
        forbidden = self(torch.zeros((1, prompt_length), dtype=torch.long))[0]
        forbidden[list(self._eos)] |= not self._matcher.is_accepting()
        if bool(forbidden.all()):
            raise UsageError(f"{what} allows no text", "it must allow one")

    def __call__(self, ids: Tensor) -> Tensor:
        """(rows, vocab), True where a token is ruled out after `ids` (rows, length), prompt included."""
        rows = [self._row(tokens) for tokens in ids[:, self._start :].tolist()]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _row(self, tokens: list[int]) -> Tensor:
        if self._known is not None and self._known[0] == tokens:
            return self._known[1]
        done = len(self._consumed)
        if tokens[:done] != self._consumed:
            self._matcher.reset()
            done = 0
        if not self._matcher.consume_tokens(tokens[done:]):
            # The text has left the grammar, as one that is not drawn under it may.
            forbidden = torch.zeros((1, self._vocab), dtype=torch.bool)
            self._matcher.reset()
            self._consumed = []
            return forbidden
        self._consumed = list(tokens)
        if self._matcher.is_stopped():  # nothing but the end may follow
            allowed = np.zeros(self._vocab, np.uint8)
            allowed[list(self._eos)] = 1
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            allowed = np.unpackbits(bits, bitorder="little")
            if self._matcher.is_error() and tokens:
                problem = first_line(Exception(self._matcher.get_error()))
                raise DecodeError(f"the constraint cannot be followed: {problem}", "simplify it")
        mask = np.ones(self._vocab, np.bool_)
        width = min(len(allowed), self._vocab)
        np.equal(allowed[:width], 0, out=mask[:width])
        forbidden = torch.from_numpy(mask)[None]
        self._known = list(tokens), forbidden
        return forbidden

    def is_met(self, tokens: Sequence[int]) -> bool:
        """Whether the text of these new tokens is one that the grammar allows."""
        self._row(list(tokens))
        return bool(self._matcher.is_accepting())

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether nothing can follow these new tokens."""
        self._row(list(tokens))
        return bool(self._matcher.is_stopped())


def _grammar(words: str) -> str:
    """llguidance's form of a constraint."""
    import llguidance

    kind, rest = split_constraint(words)
    compile_ = llguidance.LLMatcher
    if kind == "choice":
        choices = [json.dumps(choice, ensure_ascii=False) for choice in rest.split(",")]
        if '""' in choices:
            raise UsageError(f"--constrain {words} has an empty choice", "write choice:yes,no")
        return str(compile_.grammar_from_lark(f"start: {' | '.join(choices)}"))
    if kind == "regex":
        return str(compile_.grammar_from_regex(rest))
    if kind == "json":
        return str(compile_.grammar_from_json_schema("{}"))
    text = read_file(rest, f"--constrain {kind}:{rest}", _LARGEST).decode("utf-8", "replace")
    if kind == "json-schema":
        schema = parse_json(text, rest, "give a JSON schema")
        if not isinstance(schema, dict):
            raise UsageError(f"{rest} is no JSON schema: it is not an object", "give a JSON schema")
        return str(compile_.grammar_from_json_schema(text))
    if rest.lower().endswith(".gbnf"):
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            text = gbnf_to_lark(text)
        except Exception as error:
            raise UsageError(f"{rest} is no GBNF grammar: {first_line(error)}", "mend it") from None
    return str(compile_.grammar_from_lark(text))


def _tokenizer(lm: LanguageModel) -> Any:
    backend = getattr(lm.codec, "backend_tokenizer", None)
    if backend is None:
        raise LoadError(
            f"--constrain cannot read the tokenizer of {lm.info.name}, which is a slow one",
            "give a model with a tokenizer.json",
        )
    try:
        return _of_backend(backend, lm.info.vocab_size, tuple(sorted(lm.eos_ids)))
    except (ValueError, RuntimeError, TypeError) as error:
        raise LoadError(
            f"--constrain cannot read the tokenizer of {lm.info.name}: {first_line(error)}",
            "its kind is not known to llguidance",
        ) from error


@lru_cache(maxsize=2)
def _of_backend(backend: Any, vocab: int, eos: tuple[int, ...]) -> Any:
    import llguidance

    text = json.loads(backend.to_str())
    text["padding"] = text["truncation"] = None
    return llguidance.LLTokenizer(json.dumps(text), n_vocab=vocab, eos_token=list(eos) or None)
