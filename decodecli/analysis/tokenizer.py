"""A name or folder → its tokenizer, without weights, and without transformers where that can be.

A `tokenizer.json` that transformers takes as it is goes straight to the tokenizers library, which
loads in a few hundredths of a second; everything else goes through transformers' AutoTokenizer. Both
answer to the one small interface of `Tokenizer`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from decodecli.builtin import model_path
from decodecli.errors import LoadError, UsageError
from decodecli.library_logging import quiet_libraries
from decodecli.models.chat_template import ROLES, ChatTemplate
from decodecli.models.checkpoint import Progress, fetch_snapshot, has_tokenizer
from decodecli.models.detokenize import piece_of, special_ids, tokenizer_kind
from decodecli.models.model_files import blamed_on, check_regular, first_line, read_json
from decodecli.settings import BUILTIN

# Classes for which transformers reads tokenizer.json as it stands; the others rebuild it.
_AS_IT_STANDS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_WANTED = [
    "tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template*", "additional_chat_templates/*", "config.json", "*.tiktoken", "tekken.json",
]  # fmt: skip
Settings = dict[str, Any]


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer by its name.

    backend: the tokenizers library's object; None for the few that are written in Python.
    whole: transformers' object, where it was needed to load it.
    kind: how the vocabulary spells bytes: "byte_fallback", "byte_level" or "other".
    special, added: ids that decoding skips; ids of added tokens that are not special.
    roles: `bos_token` … → the piece.
    template: the chat template, None without one.
    """

    name: str
    backend: Any = field(repr=False)
    whole: Any = field(repr=False)
    kind: str
    special: frozenset[int]
    added: frozenset[int]
    roles: dict[str, str] = field(default_factory=dict)
    template: str | None = None

    @property
    def chat_template(self) -> ChatTemplate:
        """Its chat template, which may be none."""
        return ChatTemplate(self.name, self.template, self.roles)

    @cached_property
    def size(self) -> int:
        """One more than the highest id."""
        return max(self.vocabulary().values(), default=-1) + 1

    @property
    def bos_id(self) -> int | None:
        return self.id_of(self.roles.get("bos_token"))

    @cached_property
    def unknown_id(self) -> int | None:
        """The id that stands for what the vocabulary cannot say."""
        model = getattr(self.backend, "model", None)
        if type(model).__name__ == "Unigram":  # keeps its number to itself
            place = re.match(r"Unigram\(unk_id=(\d+)", repr(model))
            return int(place[1]) if place else None
        return self.id_of(getattr(model, "unk_token", None) or self.roles.get("unk_token"))

    @cached_property
    def writes_spaces(self) -> bool:
        """Whether decoding makes a space of `▁`."""
        if self.backend is None:
            return True
        described = repr(self.backend.decoder)
        return "▁" in described or "Metaspace" in described

    @cached_property
    def affixes(self) -> tuple[str, str]:
        """What pieces inside a word begin with (`##`), and those at its end end with (`</w>`)."""
        model = getattr(self.backend, "model", None)
        names = ("continuing_subword_prefix", "end_of_word_suffix")
        prefix, suffix = (getattr(model, name, None) or "" for name in names)
        return prefix, suffix

    def vocabulary(self) -> dict[str, int]:
        """piece → id, added tokens among them."""
        found: dict[str, int] = (
            self.backend.get_vocab(with_added_tokens=True)
            if self.backend is not None
            else self.whole.get_vocab()
        )
        return found

    def piece(self, token_id: int) -> str | None:
        """The vocabulary's piece, None for an id that it does not know."""
        if self.backend is None:
            return piece_of(self.whole, token_id)
        piece: str | None = self.backend.id_to_token(token_id)
        return piece

    def id_of(self, piece: str | None) -> int | None:
        if piece is None:
            return None
        if self.backend is not None:
            found: int | None = self.backend.token_to_id(piece)
            return found
        number: int | None = self.vocabulary().get(piece)
        return number

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens spelt out."""
        if self.whole is not None:
            text: str = self.whole.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            return text
        text = self.backend.decode(ids, skip_special_tokens=False)
        return text


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
        UsageError: a revision of what is no hub name.
        LoadError: there is no such tokenizer, or it cannot be read.
    """
    folder = _folder(name, revision, progress)
    check_regular(folder)
    if not has_tokenizer(folder):
        raise LoadError(
            f"{name} has no tokenizer (tokenizer.json or tokenizer.model)",
            "copy the tokenizer files of the original model into the folder",
        )
    with blamed_on(f"the tokenizer of {name}"):
        settings = _settings(folder)
        with blamed_on(f"the chat template of {name}"):
            template = _template(folder, settings)
        if _takes_file(folder, settings):
            return _from_file(name, folder, settings, template)
        with quiet_libraries(verbose):
            whole = _from_transformers(name, folder, trust_remote_code)
        return wrap(whole, name, template or getattr(whole, "chat_template", None))


def wrap(whole: Any, name: str = "tokenizer", template: Any = None) -> Tokenizer:
    """A transformers tokenizer that is loaded already."""
    backend = getattr(whole, "backend_tokenizer", None)
    if not hasattr(backend, "get_vocab"):
        backend = None
    special = frozenset(special_ids(whole))
    added = frozenset(getattr(whole, "added_tokens_decoder", {})) - special
    roles = {role: str(piece) for role in ROLES if (piece := getattr(whole, role, None))}
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    template = template if isinstance(template, str) else None
    return Tokenizer(name, backend, whole, tokenizer_kind(whole), special, added, roles, template)


def _folder(name: str, revision: str | None, progress: Progress) -> Path:
    if not name:
        raise UsageError("--model is empty", "give a folder, a hub name, or builtin")
    local = Path(os.path.expanduser(name))
    if name == BUILTIN or os.path.isdir(local):
        if revision is not None:
            raise UsageError(
                f"--revision {revision} goes with a hub name; {name} is a folder",
                "leave --revision out",
            )
        return model_path() if name == BUILTIN else local
    if os.path.exists(local):
        raise LoadError(f"{name} is a file, not a folder", "give the folder that holds it")
    return fetch_snapshot(
        name, revision, _WANTED, has_tokenizer, progress, what=f"the tokenizer of {name}"
    )


def _settings(folder: Path) -> Settings:
    """tokenizer_config.json, the older special_tokens_map.json under it."""
    found: Settings = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            found |= read_json(path)
    return found


def _takes_file(folder: Path, settings: Settings) -> bool:
    """Whether transformers would take tokenizer.json as it stands."""
    if not (folder / "tokenizer.json").is_file() or settings.get("auto_map"):
        return False
    named = settings.get("tokenizer_class")
    # Without a configuration there is no class that could rebuild it.
    return named in _AS_IT_STANDS or not (named or (folder / "config.json").is_file())


def _from_file(name: str, folder: Path, settings: Settings, template: str | None) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    roles = {role: piece for role in ROLES if (piece := _content(settings.get(role)))}
    _add_missing(backend, settings, roles)
    known = backend.get_added_tokens_decoder()
    special = {number for number, token in known.items() if token.special}
    special |= {i for piece in roles.values() if (i := backend.token_to_id(piece)) is not None}
    kind = tokenizer_kind(_Wrapped(backend))
    added = frozenset(known) - special
    return Tokenizer(name, backend, None, kind, frozenset(special), added, roles, template)


@dataclass(frozen=True)
class _Wrapped:
    """What `tokenizer_kind` asks a transformers tokenizer for."""

    backend_tokenizer: Any
    unk_token_id: int | None = None

    def convert_tokens_to_ids(self, piece: str) -> int | None:
        found: int | None = self.backend_tokenizer.token_to_id(piece)
        return found


def _content(token: Any) -> str | None:
    """A token as configurations write it: a string, or an object with its content."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _add_missing(backend: Any, settings: Settings, roles: dict[str, str]) -> None:
    """Add what the configuration names and the file lacks, as transformers does."""
    from tokenizers import AddedToken

    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    wanted: dict[str, Any] = {}
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        for _, token in sorted(listed.items(), key=lambda item: int(item[0])):
            if (content := _content(token)) is not None:
                flags = {
                    key: bool(token[key])
                    for key in ("single_word", "lstrip", "rstrip", "normalized", "special")
                    if key in token
                }
                wanted[content] = AddedToken(content, **flags)
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    more = list(more.values()) if isinstance(more, dict) else more
    for piece in [*roles.values(), *map(_content, more)]:
        if piece is not None:
            wanted.setdefault(piece, AddedToken(piece, special=True))
    for content, token in wanted.items():
        if content not in known:
            backend.add_tokens([token])


def _from_transformers(name: str, folder: Path, trust_remote_code: bool) -> Any:
    import transformers

    # Without config.json there is nothing for AutoTokenizer to go by.
    has_config = (folder / "config.json").is_file()
    named = _settings(folder).get("tokenizer_class") or "PreTrainedTokenizerFast"
    loader = getattr(transformers, named if not has_config else "AutoTokenizer", None)
    if loader is None:
        loader = transformers.AutoTokenizer
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


def _template(folder: Path, settings: Settings) -> str | None:
    """The chat template: a file of its own, or a key of the configuration (one, or several by name)."""
    for path in (folder / "chat_template.jinja", folder / "chat_template.json"):
        if path.is_file() and path.suffix == ".jinja":
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise LoadError(
                    f"{path} cannot be read: {first_line(error)}", "copy it again"
                ) from error
        if path.is_file():
            settings = {**settings, **read_json(path)}
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
