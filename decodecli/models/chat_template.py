"""A prompt through the tokenizer's chat template: the ids of transformers' `apply_chat_template`.

The template says which special tokens there are; the text of a message cannot pass for one of them.
Imports neither torch nor transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodecli.errors import LoadError, PromptError
from decodecli.models.model_files import first_line
from decodecli.models.time_limit import within
from decodecli.settings import ChatParams

Messages = Sequence[Mapping[str, Any]]
ROLES = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
_SECONDS = 5.0  # that a template may take
_ALLOW = "--allow-special lets it be one"


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with what it may refer to.

    name: of the model, for messages. source: Jinja. roles: `bos_token` … → the piece.
    """

    name: str
    source: str | None
    roles: Mapping[str, str]

    def render(self, messages: Messages) -> str:
        """What the template makes of the messages, ready for the answer.

        Raises:
            LoadError: there is no template, or it does not work with these messages.
        """
        if self.source is None:
            raise LoadError(
                f"{self.name} has no chat template", "leave --chat out, or use a chat model"
            )
        source, what = self.source, f"the chat template of {self.name}"
        values = {"messages": messages, "add_generation_prompt": True, **self.roles}
        try:
            return within(
                _SECONDS,
                lambda: _compiled(source).render(tools=None, documents=None, **values),
                what,
            )
        except LoadError:
            raise
        except Exception as error:  # a template is a program: anything may come of it
            raise LoadError(
                f"{what} does not work: {first_line(error)}",
                "check the messages' roles; --debug shows where it failed",
            ) from error


def _compiled(source: str) -> Any:
    import jinja2
    from jinja2 import sandbox

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **more)

    def now(format: str) -> str:
        from datetime import datetime

        return datetime.now().strftime(format)

    class Environment(sandbox.ImmutableSandboxedEnvironment):
        """Without numbers so large that no other thread runs while they are computed."""

        intercepted_binops = frozenset(("**", "*"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            large = any(isinstance(side, int) and abs(side) > 10**6 for side in (left, right))
            if large or (operator == "**" and right > 100):
                raise OverflowError("its numbers are too large")
            return super().call_binop(context, operator, left, right)

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals.update(raise_exception=refuse, strftime_now=now)
    return environment.from_string(_without_generation(source))


def _without_generation(template: str) -> str:
    """`{% generation %}` … `{% endgeneration %}`, which mark the assistant's part for training and print
    what it holds, as a condition that always holds."""
    opened = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", template)
    return re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", opened)


def template_of(tokenizer: Any, name: str) -> ChatTemplate:
    """The template of a transformers tokenizer; of several named ones the default."""
    source = getattr(tokenizer, "chat_template", None)
    if isinstance(source, dict):
        source = source.get("default")
    roles = {role: str(piece) for role in ROLES if (piece := getattr(tokenizer, role, None))}
    return ChatTemplate(name, source if isinstance(source, str) else None, roles)


def encode_chat(tokenizer: Any, name: str, text: str, chat: ChatParams) -> list[int]:
    """The ids of a user's message, and a system message before it, up to where the answer begins.

    Raises:
        LoadError: the model has no chat template, or one that does not work.
        PromptError: the template takes no system message.
    """
    template = template_of(tokenizer, name)
    user = {"role": "user", "content": text}
    messages = [user] if chat.system is None else [{"role": "system", "content": chat.system}, user]
    rendered = _rendered(template, messages)
    if not chat.allow_special:
        masked = _Masked(tokenizer, messages)
        if masked.changed:
            return masked.encode(rendered, _rendered(template, masked.messages), name)
    return _ids(tokenizer, rendered)


def _rendered(template: ChatTemplate, messages: Messages) -> str:
    """The rendered messages; `PromptError` where the system message is refused or left out."""
    if len(messages) == 1:
        return template.render(messages)
    alone = template.render(messages[1:])
    try:
        rendered = template.render(messages)
        problem = "" if rendered != alone else ": it leaves it out"
    except LoadError as error:
        problem = ": " + error.message.partition(" does not work: ")[2]
    if problem:
        raise PromptError(
            f"the chat template of {template.name} takes no system message{problem}",
            "leave --system out, and say it in the prompt",
        )
    return rendered


def _ids(tokenizer: Any, text: str, special: bool = True) -> list[int]:
    """The ids of a text that has all its special tokens; those in it are text where not `special`."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=not special)[
        "input_ids"
    ]
    return ids


class _Masked:
    """Messages in which the text of special tokens is made unreadable, character by character.

    What the template makes of them shows which special tokens are its own; the text between those is
    encoded with no special token in it.
    """

    def __init__(self, tokenizer: Any, messages: Messages) -> None:
        self._tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        added = tokenizer.added_tokens_decoder
        self._special = {number: token.content for number, token in added.items() if token.special}
        said = "".join(str(message["content"]) for message in messages)
        self._mask = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in said)
        self.messages = [{**m, "content": self._hidden(str(m["content"]))} for m in messages]
        self.changed = any(a != b for a, b in zip(messages, self.messages, strict=True))

    def _hidden(self, text: str) -> str:
        """The text with everything that would be read as a special token masked, white space aside."""
        characters = list(text)
        for _, start, end in self._spans(text):
            for index in range(start, end):
                if not characters[index].isspace():
                    characters[index] = self._mask
        return "".join(characters)

    def _spans(self, text: str) -> list[tuple[int, int, int]]:
        """Id, start and end of every special token that is read in a text."""
        if not hasattr(self._backend, "encode_batch"):
            token = next((content for content in self._special.values() if content in text), None)
            if token is None:
                return []
            raise PromptError(
                f"the prompt has {token}, and this tokenizer cannot read it as plain text", _ALLOW
            )
        # In a batch: alone, the library would not let other threads run meanwhile.
        encoding = self._backend.encode_batch([text], add_special_tokens=False)[0]
        unknown = self._tokenizer.unk_token_id
        return [
            (number, start, end)
            for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if number in self._special
            # The unknown token stands for any character, and is typed only where it is spelt.
            and (number != unknown or text[start:end].strip() == self._special[number])
        ]

    def encode(self, rendered: str, masked: str, name: str) -> list[int]:
        """The ids of a rendered text, of which `masked` is the rendering of the masked messages."""
        same = len(rendered) == len(masked) and all(
            b in (a, self._mask) for a, b in zip(rendered, masked, strict=True)
        )
        if not same:
            raise PromptError(
                f"the prompt has the text of a special token, and the chat template of {name} does "
                "not leave it as it is",
                _ALLOW,
            )
        ids, start = list[int](), 0
        for number, first, end in [*self._spans(masked), (None, len(masked), len(masked))]:
            ids += self._between(rendered[start:first], at_start=start == 0)
            ids += [] if number is None else [number]
            start = end
        return ids

    def _between(self, text: str, at_start: bool) -> list[int]:
        """The ids of the text between two special tokens."""
        if not text:
            return []
        if not at_start and "prepend_scheme=first" in repr(self._backend.pre_tokenizer):
            # Such a tokenizer puts a space before the first word of what it is given.
            line, both = (_ids(self._tokenizer, t, False) for t in ("\n", "\n" + text))
            if both[: len(line)] == line:
                return both[len(line) :]
        return _ids(self._tokenizer, text, special=False)
