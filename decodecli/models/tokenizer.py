"""A name or folder → its tokenizer, without weights, and without transformers where that can be.

A `tokenizer.json` that transformers takes as it is goes straight to the tokenizers library, which
loads in a few hundredths of a second; everything else goes through transformers' AutoTokenizer. Both
answer to the one small interface of `Tokenizer`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from decodecli.byte_level import ALPHABET
from decodecli.errors import LoadError, UsageError
from decodecli.library_logging import quiet_libraries
from decodecli.models.checkpoint import Progress, fetch_snapshot, has_tokenizer, local_folder
from decodecli.models.detokenize import piece_of, special_ids, tokenizer_kind
from decodecli.models.model_files import (
    SPECIAL_TOKENS,
    blamed_on,
    check_regular,
    first_line,
    read_json,
)

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Classes for which transformers reads tokenizer.json as it stands; the others rebuild it.
_AS_IT_STANDS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_FILES = [
    "tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template*", "additional_chat_templates/*", "config.json", "*.tiktoken", "tekken.json",
]  # fmt: skip
_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
Settings = dict[str, Any]


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer by its name.

    backend: the tokenizers library's object; None for the few that are written in Python.
    hf_tokenizer: transformers' object, where it was needed to load it.
    kind: how the vocabulary spells bytes: "byte_fallback", "byte_level" or "other".
    special, added: ids that decoding skips; ids of added tokens that are not special.
    roles: `bos_token` … → the piece.
    template: the chat template, None without one.
    """

    name: str
    backend: Any = field(repr=False)
    hf_tokenizer: Any = field(repr=False)
    kind: str
    special: frozenset[int]
    added: frozenset[int]
    roles: dict[str, str] = field(default_factory=dict)
    template: str | None = None

    @cached_property
    def size(self) -> int:
        """One more than the highest id."""
        return max(self.vocabulary().values(), default=-1) + 1

    @property
    def bos_id(self) -> int | None:
        return self.id_of(self.roles.get("bos_token"))

    @cached_property
    def unknown_id(self) -> int | None:
        """The id that stands for what the vocabulary cannot spell."""
        model = getattr(self.backend, "model", None)
        if type(model).__name__ == "Unigram":  # has no attribute for it
            match = re.match(r"Unigram\(unk_id=(\d+)", repr(model))
            return int(match[1]) if match else None
        return self.id_of(getattr(model, "unk_token", None) or self.roles.get("unk_token"))

    @cached_property
    def writes_spaces(self) -> bool:
        """Whether decoding makes a space of `▁`."""
        described = repr(self.backend.decoder) if self.backend is not None else "▁"
        return "▁" in described or "Metaspace" in described

    @cached_property
    def _affixes(self) -> tuple[str, str]:
        """What pieces inside a word begin with (`##`), and those at its end end with (`</w>`)."""
        model = getattr(self.backend, "model", None)
        prefix = getattr(model, "continuing_subword_prefix", None)
        return prefix or "", getattr(model, "end_of_word_suffix", None) or ""

    def vocabulary(self) -> dict[str, int]:
        """piece → id, added tokens among them."""
        if self.backend is None:
            return self.hf_tokenizer.get_vocab()
        return self.backend.get_vocab(with_added_tokens=True)

    def piece(self, token_id: int) -> str | None:
        """The vocabulary's piece, None for an id that it does not know."""
        if self.backend is None:
            return piece_of(self.hf_tokenizer, token_id)
        return self.backend.id_to_token(token_id)

    def id_of(self, piece: str | None) -> int | None:
        """The id of a piece, None without one."""
        if piece is None:
            return None
        if self.backend is None:
            return self.vocabulary().get(piece)
        return self.backend.token_to_id(piece)

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens spelt out."""
        if self.hf_tokenizer is None:
            return self.backend.decode(ids, skip_special_tokens=False)
        return self.hf_tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token of the vocabulary stands for, wherever it stands; those of its
        spelling for an added token."""
        piece = self.piece(token_id) or ""
        if token_id in self.special or token_id in self.added:
            return piece.encode("utf-8", "replace")
        if self.kind == "byte_fallback" and (byte := BYTE_TOKEN.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        prefix, suffix = self._affixes
        if piece != prefix:
            piece = piece.removeprefix(prefix)
        if suffix and piece.endswith(suffix):
            piece = piece.removesuffix(suffix) + " "
        return self.spelled_bytes(piece)

    def spelled_bytes(self, spelling: str) -> bytes:
        """The bytes of normalised text as the vocabulary spells it (`▁` and `Ġ` for a space)."""
        if self.kind == "byte_level" and ALPHABET.keys() >= set(spelling):
            return bytes(ALPHABET[character] for character in spelling)
        if self.kind != "byte_level" and self.writes_spaces:
            spelling = spelling.replace("▁", " ")
        return spelling.encode("utf-8", "replace")

    def token_kind(self, token_id: int, data: bytes) -> str:
        """What kind of token it is, one of `records.tokens.KINDS`: byte tokens stand for bytes that are
        no whole characters, or are one of the 256 that a vocabulary falls back on."""
        if token_id in self.special:
            return "special"
        if token_id in self.added:
            return "added"
        if self.kind == "byte_fallback" and BYTE_TOKEN.fullmatch(self.piece(token_id) or ""):
            return "byte"
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return "byte"
        return "normal"


def find_tokenizer(
    name: str,
    revision: str | None = None,
    *,
    trust_remote_code: bool = False,
    verbose: bool = False,
    progress: Progress = lambda _: None,
) -> Tokenizer:
    """The tokenizer of a model folder (weights are not needed), a hub name, or the built-in model.

    Raises:
        UsageError: a revision of what is not a hub name.
        LoadError: there is no such tokenizer, or it cannot be read.
    """
    if not name:
        raise UsageError("--model is empty", "give a folder, a hub name, or builtin")
    what = f"the tokenizer of {name}"
    folder = local_folder(name, revision) or fetch_snapshot(
        name, revision, _FILES, has_tokenizer, progress, what=what
    )
    check_regular(folder)
    if not has_tokenizer(folder):
        raise LoadError(
            f"{name} has no tokenizer (tokenizer.json or tokenizer.model)",
            "copy the tokenizer files of the original model into the folder",
        )
    with blamed_on(what, folder=folder):
        settings: Settings = {}
        for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the older one first
            if (folder / file).is_file():
                settings |= read_json(folder / file)
        with blamed_on(f"the chat template of {name}", folder=folder):
            template = _chat_template(folder, settings)
        class_name = settings.get("tokenizer_class")
        # Without a configuration there is no class that could rebuild it.
        as_it_stands = class_name in _AS_IT_STANDS or not (
            class_name or (folder / "config.json").is_file()
        )
        path = folder / "tokenizer.json"
        if path.is_file() and as_it_stands and not settings.get("auto_map"):
            return from_file(path, name, settings, template)
        with quiet_libraries(verbose):
            hf_tokenizer = _from_transformers(name, folder, class_name, trust_remote_code)
        return wrap(hf_tokenizer, name, template or getattr(hf_tokenizer, "chat_template", None))


def wrap(hf_tokenizer: Any, name: str = "tokenizer", template: Any = None) -> Tokenizer:
    """A transformers tokenizer that is loaded already."""
    backend = getattr(hf_tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "get_vocab"):
        backend = None
    special = frozenset(special_ids(hf_tokenizer))
    added = frozenset(getattr(hf_tokenizer, "added_tokens_decoder", {})) - special
    roles = {
        role: str(piece) for role in SPECIAL_TOKENS if (piece := getattr(hf_tokenizer, role, None))
    }
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    template = template if isinstance(template, str) else None
    kind = tokenizer_kind(hf_tokenizer)
    return Tokenizer(name, backend, hf_tokenizer, kind, special, added, roles, template)


def from_file(
    path: Path, name: str, settings: Settings | None = None, template: str | None = None
) -> Tokenizer:
    """The tokenizer of a tokenizer.json, with the tokens that its tokenizer_config.json adds."""
    import tokenizers

    backend, settings = tokenizers.Tokenizer.from_file(str(path)), settings or {}
    backend.no_truncation()
    backend.no_padding()
    roles = {role: piece for role in SPECIAL_TOKENS if (piece := _content(settings.get(role)))}
    # Add what the configuration names and the file lacks, as transformers does.
    wanted: dict[str, Any] = {}
    listed = settings.get("added_tokens_decoder")
    listed = listed if isinstance(listed, dict) else {}
    for token in (listed[token_id] for token_id in sorted(listed, key=int)):
        if (content := _content(token)) is not None:
            flags = {flag: bool(token[flag]) for flag in _TOKEN_FLAGS if flag in token}
            wanted[content] = tokenizers.AddedToken(content, **flags)
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    more = more.values() if isinstance(more, dict) else more
    for piece in [*roles.values(), *map(_content, more)]:
        if piece is not None:
            wanted.setdefault(piece, tokenizers.AddedToken(piece, special=True))
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_tokens([token for content, token in wanted.items() if content not in known])

    added = backend.get_added_tokens_decoder()
    special = {token_id for token_id, token in added.items() if token.special}
    special |= {i for piece in roles.values() if (i := backend.token_to_id(piece)) is not None}
    kind = tokenizer_kind(
        SimpleNamespace(backend_tokenizer=backend, convert_tokens_to_ids=backend.token_to_id)
    )
    plain = frozenset(added) - special
    return Tokenizer(name, backend, None, kind, frozenset(special), plain, roles, template)


def _content(token: Any) -> str | None:
    """A token as configurations write it: a string, or an object with its content."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _from_transformers(
    name: str, folder: Path, class_name: str | None, trust_remote_code: bool
) -> Any:
    import transformers

    loader = transformers.AutoTokenizer
    if not (folder / "config.json").is_file():  # AutoTokenizer has nothing to go by
        loader = getattr(transformers, class_name or "PreTrainedTokenizerFast", loader)
    try:
        return loader.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            clean_up_tokenization_spaces=False,
        )
    except ImportError as error:
        raise LoadError(
            f"the tokenizer of {name} needs a package that is not installed: {first_line(error)}",
            "pip install sentencepiece protobuf",
        ) from error


def _chat_template(folder: Path, settings: Settings) -> str | None:
    """The chat template: a file of its own, or a key of the configuration (one, or several by name)."""
    jinja, as_json = folder / "chat_template.jinja", folder / "chat_template.json"
    if jinja.is_file():
        try:
            return jinja.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise LoadError(
                f"{jinja} cannot be read: {first_line(error)}", "copy it again"
            ) from error
    if as_json.is_file():
        settings = settings | read_json(as_json)
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict)]
        template = {item.get("name"): item.get("template") for item in named}.get("default")
    return template if isinstance(template, str) else None
