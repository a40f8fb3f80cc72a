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
from decodecli.models.model_files import SPECIAL_TOKENS, first_line
from decodecli.models.time_limit import within
from decodecli.settings import ChatParams

Messages = Sequence[Mapping[str, Any]]
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
        values |= {"tools": None, "documents": None}
        try:
            return within(_SECONDS, lambda: _compiled(source).render(values), what)
        except LoadError:
            raise
        except Exception as error:  # a template is a program: anything may come of it
            raise LoadError(
                f"{what} does not work: {first_line(error)}",
                "check the messages' roles; --debug shows where it failed",
            ) from error


def _compiled(source: str) -> Any:
    """The template in an environment like transformers' (`transformers.utils.chat_template_utils`),
    whose import brings torch, and which lets numbers grow until the time limit cannot be kept."""
    from datetime import datetime

    import jinja2
    from jinja2 import sandbox

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **more)

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
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    # What marks the assistant's part for training becomes a condition that always holds.
    source = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", source)
    source = re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", source)
    return environment.from_string(source)


def encode_chat(tokenizer: Any, name: str, text: str, chat: ChatParams) -> list[int]:
    """The ids of a user's message, and a system message before it, up to where the answer begins.

    Raises:
        LoadError: the model has no chat template, or one that does not work.
        PromptError: the template takes no system message.
    """
    source = getattr(tokenizer, "chat_template", None)
    if isinstance(source, dict):  # several by name
        source = source.get("default")
    roles = {
        role: str(piece) for role in SPECIAL_TOKENS if (piece := getattr(tokenizer, role, None))
    }
    template = ChatTemplate(name, source if isinstance(source, str) else None, roles)
    messages = [{"role": "user", "content": text}]
    if chat.system is not None:
        messages.insert(0, {"role": "system", "content": chat.system})
    rendered = _render(template, messages)
    if not chat.allow_special:
        masked, mask = _mask_special(tokenizer, messages)
        if masked != messages:
            return _encode_masked(tokenizer, rendered, _render(template, masked), mask, name)
    return _ids(tokenizer, rendered)


def _render(template: ChatTemplate, messages: Messages) -> str:
    """The rendered messages; `PromptError` where the system message is refused or left out."""
    if len(messages) == 1:
        return template.render(messages)
    without_system = template.render(messages[1:])
    try:
        rendered = template.render(messages)
        problem = "it leaves it out" if rendered == without_system else ""
    except LoadError as error:
        if error.__cause__ is None:  # it did not come to an end
            raise
        problem = first_line(error.__cause__)
    if problem:
        raise PromptError(
            f"the chat template of {template.name} takes no system message: {problem}",
            "leave --system out, and say it in the prompt",
        )
    return rendered


def _ids(tokenizer: Any, text: str, special: bool = True) -> list[int]:
    """The ids of a text that has all its special tokens; those in it are text where not `special`."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=not special)[
        "input_ids"
    ]
    return ids


def _special_spans(tokenizer: Any, text: str) -> list[tuple[int, int, int]]:
    """Id, start and end of every special token that is read in a text."""
    added = tokenizer.added_tokens_decoder
    special = {number: token.content for number, token in added.items() if token.special}
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "encode_batch"):
        token = next((content for content in special.values() if content in text), None)
        if token is None:
            return []
        raise PromptError(
            f"the prompt has {token}, and this tokenizer cannot read it as plain text", _ALLOW
        )
    # In a batch: alone, the library would not let other threads run meanwhile.
    encoding = backend.encode_batch([text], add_special_tokens=False)[0]
    return [
        (number, start, end)
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        if number in special
        # The unknown token stands for any character, and is typed only where it is spelt.
        and (number != tokenizer.unk_token_id or text[start:end].strip() == special[number])
    ]


def _mask_special(tokenizer: Any, messages: Messages) -> tuple[Messages, str]:
    """The messages with the text of special tokens made unreadable, character by character; and the
    character that masks, which they do not have.

    What the template makes of them shows which special tokens are its own.
    """
    text = "".join(str(message["content"]) for message in messages)
    mask = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)
    masked = []
    for message in messages:
        characters = list(str(message["content"]))
        for _, start, end in _special_spans(tokenizer, str(message["content"])):
            for index in range(start, end):
                if not characters[index].isspace():
                    characters[index] = mask
        masked.append({**message, "content": "".join(characters)})
    return masked, mask


def _encode_masked(tokenizer: Any, rendered: str, masked: str, mask: str, name: str) -> list[int]:
    """The ids of a rendered text, of which `masked` is the rendering of the masked messages: the text
    between the template's own special tokens is encoded with no special token in it."""
    if len(rendered) != len(masked) or any(
        b not in (a, mask) for a, b in zip(rendered, masked, strict=True)
    ):
        raise PromptError(
            f"the prompt has the text of a special token, and the chat template of {name} does "
            "not leave it as it is",
            _ALLOW,
        )
    # Such a tokenizer puts a space before the first word of what it is given.
    prepends = "prepend_scheme=first" in repr(tokenizer.backend_tokenizer.pre_tokenizer)
    ids, start = list[int](), 0
    for number, end, after in [*_special_spans(tokenizer, masked), (None, len(masked), 0)]:
        text = rendered[start:end]
        if text:
            between = _ids(tokenizer, text, special=False)
            if start > 0 and prepends:
                line, both = (_ids(tokenizer, t, special=False) for t in ("\n", "\n" + text))
                between = both[len(line) :] if both[: len(line)] == line else between
            ids += between
        ids += [] if number is None else [number]
        start = after
    return ids
