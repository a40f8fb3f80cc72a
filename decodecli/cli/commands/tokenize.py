"""`decodecli tokenize`: what goes into a model, token by token, without the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import INPUT, Argument, Option, Request, command
from decodecli.cli.loading_line import loading_line
from decodecli.cli.output import TABLE_FORMATS, write_report
from decodecli.errors import UsageError
from decodecli.settings import chat_params
from decodecli.text_files import parse_json

if TYPE_CHECKING:
    from decodecli.models.tokenizer import Tokenizer
    from decodecli.records.tokens import TokenReport, TokenReports
    from decodecli.render.terminal.step_table import Style

COMPARE, VOCABULARY = "Compare", "Vocabulary"

TEXT = Argument(
    "text",
    "TEXT",
    "What to cut into tokens; - reads it from standard input. "
    r"[dim]\[default: Once upon a time,][/dim]",
)
MODELS = o.MODEL_NAME.but(
    several=True,
    help="Hub name, or a folder with a tokenizer; repeatable, to compare.",
)
BOS = o.BOS.but(panel=INPUT, help="Add special tokens to the text.")
LINES = Option("lines", bool, INPUT, "Every line is a text of its own: a row of counts each.")
IDS = Option("ids", str, INPUT, "Decode these ids instead.", "ID,ID,…")
CHAT = Option(
    "chat", bool, INPUT,
    "Apply the chat template: TEXT is the user's message (a .json file: the messages)."
)  # fmt: skip
SYSTEM = o.CHAT[1].but(panel=INPUT)
ALLOW_SPECIAL = o.ALLOW_SPECIAL.but(panel=INPUT)
COMPARE_BOS = Option("compare_bos", bool, COMPARE, "With and without special tokens, side by side.")
VOCAB = Option("vocab", bool, VOCABULARY, "List the vocabulary, with counts per script.")
SEARCH = (
    Option("grep", str, VOCABULARY, "Tokens whose piece or text matches.", "REGEX"),
    Option("longest", int, VOCABULARY, "The N longest by text.", "N"),
    Option("script", str, VOCABULARY,
           "Tokens of one script: Latin, Han, Cyrillic, …, Mixed, Numbers, Bytes.", "NAME"),
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class TokenizeRequest(Request):
    """Everything that `tokenize` is told, checked.

    Raises:
        UsageError: options that do not go together.
    """

    text: str | None = None
    file: str | None = None
    model: tuple[str, ...] = ()
    ids: str | None = None
    chat: bool = False
    system: str | None = None
    lines: bool = False
    compare_bos: bool = False
    vocab: bool = False
    grep: str | None = None
    longest: int | None = None
    script: str | None = None
    format: str = "table"

    @property
    def has_template(self) -> bool:
        """Whether the text goes through the chat template; a system message asks for it too."""
        return self.chat or self.system is not None

    @property
    def models(self) -> tuple[str, ...]:
        return self.model or (self.effective.values["model"],)

    def __post_init__(self) -> None:
        if len(set(self.models)) < len(self.models):
            raise UsageError("--model names one twice", "give each once")
        is_given = {
            "--vocab": self.vocab,
            "--ids": self.ids is not None,
            "--chat": self.has_template,
            "--lines": self.lines,
            "--compare-bos": self.compare_bos,
            _BOS: self.effective.sources.get("bos") == "flag",
            "a text or --file": self.text is not None or self.file is not None,
            "several --model": len(self.models) > 1,
        }
        for first, others in _APART.items():
            for other in others:
                if is_given[first] and is_given[other]:
                    raise UsageError(f"{first} and {other} do not go together", "leave one out")
        if self.effective.sources["allow_special"] == "flag":
            chat_params({"chat": self.has_template, "allow_special": True})
        for name in ("grep", "longest", "script"):
            if getattr(self, name) is not None and not self.vocab:
                raise UsageError(f"--{name} goes with --vocab", f"--vocab --{name} …")


_BOS = "--bos or --no-bos"
_APART = {
    "--vocab": (
        "--ids", "--chat", "--lines", "--compare-bos", _BOS, "a text or --file", "several --model",
    ),
    "--ids": ("--chat", "--lines", "--compare-bos", _BOS, "a text or --file"),
    "--chat": ("--lines", "--compare-bos", _BOS),
    "--compare-bos": (_BOS, "several --model"),
}  # fmt: skip


@command(
    *(
        TEXT,
        BOS,
        o.FILE,
        LINES,
        IDS,
        CHAT,
        SYSTEM,
        ALLOW_SPECIAL,
        MODELS,
        o.REVISION,
        o.TRUST_REMOTE_CODE,
    ),
    *(COMPARE_BOS, VOCAB, *SEARCH, o.format_of(*TABLE_FORMATS), o.QUIET, o.VERBOSE, o.COLOR),
    *(o.DEBUG, o.PRESET, o.CONFIG_FILE),
    request=TokenizeRequest,
)
def tokenize(request: TokenizeRequest) -> None:
    """See the tokens of a text: ids, pieces, bytes, and the characters that each comes from.

    [bold]Examples[/bold]

      decodecli tokenize "The capital of Japan is"

      decodecli tokenize "日本の首都は" --compare-bos

      decodecli tokenize --file poem.txt --lines -m builtin -m ./other

      decodecli tokenize --ids 1,403,515,418,2723

      decodecli tokenize "Who are you?" --chat -m ./chat-model

      decodecli tokenize --vocab --longest 20
    """
    text, file = request.text, request.file
    if request.vocab:
        _list_vocabulary(request)
    elif request.ids is not None:
        from decodecli.analysis.tokenization import decode_ids, parse_ids

        ids = parse_ids(request.ids)
        _show(request, [decode_ids(ids, tokenizer) for tokenizer in _tokenizers(request)])
    elif request.has_template and text is None and file is not None and file.endswith(".json"):
        _encode_chat(request, _messages(streams.read_data(file)[0]))
    else:
        notices = streams.Notices(request.output.quiet)
        words = streams.read_prompt(text, file, notices.tell, "no text was given; reading")
        if request.has_template:
            _encode_chat(request, [{"role": "user", "content": words}])
        else:
            _encode(request, words)


def _encode(request: TokenizeRequest, text: str) -> None:
    """Show the tokens of a text under every model, with and without BOS, line by line: as asked."""
    from decodecli.analysis.tokenization import tokenize

    tokenizers = _tokenizers(request)
    ways = (True, False) if request.compare_bos else (request.output.bos,)
    if not request.lines:
        _show(request, [tokenize(text, each, bos) for each in tokenizers for bos in ways])
        return
    reports = [
        replace(tokenize(line, each, bos), line=number)
        for number, line in enumerate(re.split(r"\r?\n", text), 1)
        if line.strip()  # nothing to count in the others, and no token without BOS
        for each in tokenizers
        for bos in ways
    ]
    if not reports:
        raise UsageError("there is no line with any text", "give some text")
    _show(request, reports)


def _encode_chat(request: TokenizeRequest, messages: list[dict[str, Any]]) -> None:
    """Show a conversation as the chat template makes it, and say what becomes of special tokens that
    stand in a message."""
    from decodecli.analysis.tokenization import tokenize_chat

    if request.system is not None:
        messages = [{"role": "system", "content": request.system}, *messages]
    tokenizers, allowed = _tokenizers(request), bool(request.effective.values["allow_special"])
    contents = "\n".join(str(message.get("content")) for message in messages)
    pieces = [piece for each in tokenizers for i in each.special if (piece := each.piece(i))]
    typed = [piece for piece in dict.fromkeys(pieces) if piece in contents]
    if typed and not allowed:
        streams.Notices(request.output.quiet).tell(
            f"{', '.join(typed[:3])} in a message is read as text; --allow-special lets it be a "
            "special token"
        )
    _show(
        request,
        [tokenize_chat(messages, each, allow_special=allowed) for each in tokenizers],
    )


def _messages(text: str) -> list[dict[str, Any]]:
    """A conversation as chat templates take it: a list of objects with role and content.

    Raises:
        UsageError: it is none.
    """
    example = 'like [{"role": "user", "content": "Hello"}]'
    messages: Any = parse_json(text, "--file", example)
    if (
        not messages
        or not isinstance(messages, list)
        or not all(isinstance(message, dict) and "role" in message for message in messages)
    ):
        raise UsageError("--file holds no list of messages", example)
    return messages


def _list_vocabulary(request: TokenizeRequest) -> None:
    """Show the vocabulary, or the part of it that was asked for."""
    from decodecli.analysis.vocabulary import vocabulary
    from decodecli.render.terminal.token_tables import vocabulary_lines

    (tokenizer,) = _tokenizers(request)
    report = vocabulary(
        tokenizer, grep=request.grep, longest=request.longest, script=request.script
    )
    if request.format == "csv" and not report.flat():  # a search that found nothing
        streams.write_stdout("token_id,token,text,bytes,kind,script\n")
        return
    write_report(
        report, request.format, lambda style: vocabulary_lines(report, style), report.byte_level
    )


def _tokenizers(request: TokenizeRequest) -> list[Tokenizer]:
    from decodecli.models.tokenizer import find_tokenizer

    tokenizers = []
    for name in request.models:
        with loading_line(name, request.output) as progress:
            tokenizers.append(
                find_tokenizer(
                    name,
                    request.effective.values["revision"],
                    trust_remote_code=request.effective.values["trust_remote_code"],
                    verbose=request.output.verbose,
                    progress=progress,
                )
            )
    return tokenizers


def _show(request: TokenizeRequest, reports: Sequence[TokenReport]) -> None:
    """One report by itself; several told apart by what was compared."""
    from decodecli.records.tokens import TokenReports
    from decodecli.render.terminal.token_tables import several_lines, token_lines

    def lines(style: Style) -> list[str]:
        if isinstance(report, TokenReports):
            return several_lines(report, style)
        return token_lines(report, style)

    report: TokenReport | TokenReports = reports[0]
    if len(reports) > 1 or request.lines:
        by, names = "line", request.models[:1]
        if request.compare_bos:
            by, names = "bos", ("bos", "no-bos")
        elif len(request.models) > 1:
            by, names = "model", request.models
        report = TokenReports(by, names, tuple(reports))
    write_report(report, request.format, lines)
