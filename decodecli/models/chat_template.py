"""A prompt through the tokenizer's chat template: the ids of transformers' `apply_chat_template`.

The template says which special tokens there are; the text of a message cannot pass for one of them.
Imports neither torch nor transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from decodecli.errors import LoadError, PromptError
from decodecli.models.model_files import SPECIAL_TOKENS, first_line
from decodecli.models.time_limit import within
from decodecli.settings import ChatParams

T = TypeVar("T")
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
    parts = None if chat.allow_special else split_special(tokenizer, template, messages, rendered)
    if parts is None:
        return _ids(tokenizer, rendered)
    ids: list[int] = []
    for start, end, token_id in parts:
        if token_id is not None:
            ids.append(token_id)
        else:
            ids += encode_between(
                tokenizer,
                rendered[start:end],
                start,
                lambda text, start: _ids(tokenizer, text, special=False),
            )
    return ids


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
    special = {token_id: token.content for token_id, token in added.items() if token.special}
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "encode_batch"):
        token = next((content for content in special.values() if content in text), None)
        if token is None:
            return []
        raise PromptError(
            f"the prompt has {token}, and this tokenizer cannot read it as plain text", _ALLOW
        )
    backend.encode_special_tokens = False  # the call before may have left it otherwise
    # In a batch: alone, the library would not let other threads run meanwhile.
    encoding = backend.encode_batch([text], add_special_tokens=False)[0]
    return [
        (token_id, start, end)
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        if token_id in special
        # The unknown token stands for any character, and is typed only where it is spelt.
        and (token_id != tokenizer.unk_token_id or text[start:end].strip() == special[token_id])
    ]


def split_special(
    tokenizer: Any, template: ChatTemplate, messages: Messages, rendered: str
) -> list[tuple[int, int, int | None]] | None:
    """The parts of the rendered messages, as start, end and id: the special tokens that are the
    template's own, and the text between them, without an id, in which no special token may be read.

    None where no message has the text of a special token, so that `rendered` can be read as it is.

    Raises:
        PromptError: the two cannot be told apart.
    """
    # The text of special tokens in a message is masked, character by character: what is still read as
    # special once the template has rendered that is its own.
    written = json.dumps(messages, ensure_ascii=False, default=str)
    mask = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in written)

    def masked(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item if key == "role" else masked(item) for key, item in value.items()}
        if isinstance(value, list):
            return [masked(item) for item in value]
        if not isinstance(value, str):
            return value
        characters = list(value)
        for _, start, end in _special_spans(tokenizer, value):
            for index in range(start, end):
                if not characters[index].isspace():
                    characters[index] = mask
        return "".join(characters)

    masked_messages = masked(list(messages))
    if masked_messages == list(messages):
        return None
    text = template.render(masked_messages)
    if len(rendered) != len(text) or any(
        b not in (a, mask) for a, b in zip(rendered, text, strict=True)
    ):
        raise PromptError(
            "the prompt has the text of a special token, and the chat template of "
            f"{template.name} does not leave it as it is",
            _ALLOW,
        )
    parts: list[tuple[int, int, int | None]] = []
    position = 0
    for token_id, start, end in _special_spans(tokenizer, text):
        parts += [(position, start, None), (start, end, token_id)]
        position = end
    parts.append((position, len(text), None))
    return [part for part in parts if part[0] < part[1]]


def encode_between(
    tokenizer: Any, text: str, start: int, encode: Callable[[str, int], list[T]]
) -> list[T]:
    """The tokens of a text that begins at `start` of a longer one; `encode` gives those of a text and
    its start."""
    # Such a tokenizer puts a space before the first word of what it is given.
    if start > 0 and "prepend_scheme=first" in repr(tokenizer.backend_tokenizer.pre_tokenizer):
        line, both = encode("\n", start - 1), encode("\n" + text, start - 1)
        if both[: len(line)] == line:
            return both[len(line) :]
    return encode(text, start)
