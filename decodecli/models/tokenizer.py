"""A name or folder → its tokenizer, without weights, and without transformers where that can be.

A `tokenizer.json` that transformers takes as it is goes straight to the tokenizers library, which
loads in a few hundredths of a second; everything else goes through transformers' AutoTokenizer. Both
answer to the one small interface of `Tokenizer`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
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
# Model types for which it rebuilds the tokenizer, whatever class the folder names.
_REBUILT = (
    "hyperclovax_vision_v2", "qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp",
    "siglip2",
)  # fmt: skip
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
    codec: what it was made of, transformers' object or a light one.
    """

    name: str
    backend: Any = field(repr=False)
    hf_tokenizer: Any = field(repr=False)
    kind: str
    special: frozenset[int]
    added: frozenset[int]
    roles: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    codec: Any = field(default=None, repr=False)

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
    download: bool = True,
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
        name, revision, _FILES, has_tokenizer, progress, what=what, download=download
    )
    check_regular(folder)
    if not has_tokenizer(folder):
        raise LoadError(
            f"{name} has no tokenizer (tokenizer.json or tokenizer.model)",
            "copy the tokenizer files of the original model into the folder",
        )
    tokenizer = light_tokenizer(folder, name)
    if tokenizer is not None:
        return wrap(tokenizer, name)
    with quiet_libraries(verbose):
        tokenizer = load_transformers_tokenizer(folder, name, trust_remote_code)
    return wrap(tokenizer, name, _chat_template(folder, name))


def wrap(hf_tokenizer: Any, name: str = "tokenizer", template: str | None = None) -> Tokenizer:
    """A loaded tokenizer, transformers' or a light one; `template`: in place of its own."""
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
    template = template or getattr(hf_tokenizer, "chat_template", None)
    if isinstance(template, dict):  # several by name
        template = template.get("default")
    kind, codec = tokenizer_kind(hf_tokenizer), hf_tokenizer
    if isinstance(hf_tokenizer, LightTokenizer):
        hf_tokenizer = None
    return Tokenizer(name, backend, hf_tokenizer, kind, special, added, roles, template, codec)


class LightTokenizer:
    """The tokenizers library's object with the part of a transformers tokenizer's interface that is used
    here.

    Args:
        path: a tokenizer.json.
        settings: of its tokenizer_config.json, which may name more tokens.
        chat_template: Jinja.
    """

    bos_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None

    def __init__(self, path: Path, settings: Settings, chat_template: str | None = None) -> None:
        import tokenizers

        backend = tokenizers.Tokenizer.from_file(str(path))
        backend.no_truncation()
        backend.no_padding()
        self.backend_tokenizer, self.chat_template = backend, chat_template
        roles = {role: _content(settings.get(role)) for role in SPECIAL_TOKENS}
        # Add what the configuration names and the file lacks, as transformers does.
        wanted: dict[str, Any] = {}
        listed = settings.get("added_tokens_decoder")
        listed = listed if isinstance(listed, dict) else {}
        for token in (listed[token_id] for token_id in sorted(listed, key=int)):
            if (content := _content(token)) is not None:
                flags = {flag: bool(token[flag]) for flag in _TOKEN_FLAGS if flag in token}
                wanted[content] = tokenizers.AddedToken(content, **flags)
        more = (
            settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
        )
        more = more.values() if isinstance(more, dict) else more
        for piece in [*roles.values(), *map(_content, more)]:
            if piece is not None:
                wanted.setdefault(piece, tokenizers.AddedToken(piece, special=True))
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.add_tokens([token for content, token in wanted.items() if content not in known])
        for role, piece in roles.items():
            setattr(self, role, piece)
            setattr(self, f"{role}_id", None if piece is None else backend.token_to_id(piece))
        ids = (getattr(self, f"{role}_id") for role in SPECIAL_TOKENS)
        self.all_special_ids = [token_id for token_id in ids if token_id is not None]
        self.added_tokens_decoder = backend.get_added_tokens_decoder()
        self.get_vocab, self.convert_tokens_to_ids = backend.get_vocab, backend.token_to_id
        self.convert_ids_to_tokens = backend.id_to_token
        self.num_special_tokens_to_add = partial(backend.num_special_tokens_to_add, False)

    def __call__(
        self, text: str, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> dict[str, list[int]]:
        backend = self.backend_tokenizer
        backend.encode_special_tokens = split_special_tokens
        # In a batch: alone, the library would not let other threads run meanwhile.
        encodings = backend.encode_batch([text], add_special_tokens=add_special_tokens)
        return {"input_ids": encodings[0].ids}

    def decode(
        self,
        ids: list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        text: str = self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text


def light_tokenizer(folder: Path, name: str) -> LightTokenizer | None:
    """The tokenizer of a folder, where transformers would take its tokenizer.json as it stands.

    Raises:
        LoadError: it, or its chat template, cannot be read.
    """
    with blamed_on(f"the tokenizer of {name}", folder=folder):
        settings = _settings(folder)
        path, class_name = folder / "tokenizer.json", settings.get("tokenizer_class")
        if (folder / "config.json").is_file():
            model_type = read_json(folder / "config.json").get("model_type")
            as_it_stands = class_name in _AS_IT_STANDS and model_type not in _REBUILT
        else:  # without a configuration there is no class that could rebuild it
            as_it_stands = not class_name or class_name in _AS_IT_STANDS
        changed = settings.get("auto_map") or settings.get("split_special_tokens")
        if not path.is_file() or not as_it_stands or changed:
            return None
        return LightTokenizer(path, settings, _chat_template(folder, name))


def load_transformers_tokenizer(folder: Path, name: str, trust_remote_code: bool) -> Any:
    """The tokenizer of a folder as transformers loads it.

    Raises:
        LoadError: it cannot.
    """
    with blamed_on(f"the tokenizer of {name}", folder=folder):
        import transformers

        loader = transformers.AutoTokenizer
        if not (folder / "config.json").is_file():  # AutoTokenizer has nothing to go by
            class_name = _settings(folder).get("tokenizer_class") or "PreTrainedTokenizerFast"
            loader = getattr(transformers, class_name, loader)
        try:
            return loader.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                clean_up_tokenization_spaces=False,
            )
        except ImportError as error:
            raise LoadError(
                f"the tokenizer of {name} needs a package that is not installed: "
                + first_line(error),
                "pip install sentencepiece protobuf",
            ) from error


def _settings(folder: Path) -> Settings:
    """What tokenizer_config.json says, and the older file that it took the place of."""
    settings: Settings = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / file).is_file():
            settings |= read_json(folder / file)
    return settings


def _content(token: Any) -> str | None:
    """A token as configurations write it: a string, or an object with its content."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _chat_template(folder: Path, name: str) -> str | None:
    """The chat template: a file of its own, or a key of the configuration (one, or several by name)."""
    jinja, as_json = folder / "chat_template.jinja", folder / "chat_template.json"
    with blamed_on(f"the chat template of {name}", folder=folder):
        if jinja.is_file():
            return jinja.read_text(encoding="utf-8")
        settings = _settings(folder) | (read_json(as_json) if as_json.is_file() else {})
        template = settings.get("chat_template")
        if isinstance(template, list):
            named = [item for item in template if isinstance(item, dict)]
            template = {item.get("name"): item.get("template") for item in named}.get("default")
        return template if isinstance(template, str) else None
