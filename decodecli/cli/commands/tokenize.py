"""`decodecli tokenize`: what goes into a model, token by token, without the model."""

from __future__ import annotations

from typing import Annotated

import typer

from decodecli.cli import options as o
from decodecli.cli import streams

FORMATS = ("table", "json", "jsonl", "csv")
COMPARE, VOCABULARY = "Compare", "Vocabulary"
_SETTINGS = ("revision", "trust_remote_code", "bos", "quiet", "verbose", "preset", "config")

Text = Annotated[
    str | None,
    typer.Argument(
        metavar="TEXT",
        show_default=False,
        help="What to cut into tokens; - reads it from standard input. "
        r"[dim]\[default: Once upon a time,][/dim]",
    ),
]
Models = Annotated[
    list[str] | None,
    o.option(
        "--model",
        "-m",
        panel=o.MODEL,
        default="builtin",
        metavar="NAME_OR_PATH",
        help="Hub name, or a folder with a tokenizer; repeatable, to compare.",
    ),
]
Bos = Annotated[
    bool | None,
    o.switch(
        "--bos/--no-bos",
        panel=o.INPUT,
        default="as the tokenizer does",
        help="Add special tokens to the text.",
    ),
]
File = Annotated[
    str | None,
    o.option(
        "--file", "-f", panel=o.INPUT, default=None, metavar="FILE", help="Read the text from FILE."
    ),
]
Lines = Annotated[
    bool | None,
    o.switch(
        "--lines", panel=o.INPUT, help="Every line is a text of its own: a row of counts each."
    ),
]
Ids = Annotated[
    str | None,
    o.option(
        "--ids", panel=o.INPUT, default=None, metavar="ID,ID,…", help="Decode these ids instead."
    ),
]
Chat = Annotated[
    bool | None,
    o.switch(
        "--chat",
        panel=o.INPUT,
        help="Apply the chat template: TEXT is the user's message (a .json file: the messages).",
    ),
]
CompareBos = Annotated[
    bool | None,
    o.switch("--compare-bos", panel=COMPARE, help="With and without special tokens, side by side."),
]
Vocab = Annotated[
    bool | None,
    o.switch("--vocab", panel=VOCABULARY, help="List the vocabulary, with counts per script."),
]
Grep = Annotated[
    str | None,
    o.option(
        "--grep",
        panel=VOCABULARY,
        default=None,
        metavar="REGEX",
        help="Tokens whose piece or text matches.",
    ),
]
Longest = Annotated[
    int | None,
    o.option(
        "--longest", panel=VOCABULARY, default=None, metavar="N", help="The N longest by text."
    ),
]
Script = Annotated[
    str | None,
    o.option(
        "--script",
        panel=VOCABULARY,
        default=None,
        metavar="NAME",
        help="Tokens of one script: Latin, Han, Cyrillic, …, Mixed, Numbers, Bytes.",
    ),
]


def tokenize(
    text: Text = None,
    bos: Bos = None,
    file: File = None,
    lines: Lines = None,
    ids: Ids = None,
    chat: Chat = None,
    model: Models = None,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = None,
    compare_bos: CompareBos = None,
    vocab: Vocab = None,
    grep: Grep = None,
    longest: Longest = None,
    script: Script = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    quiet: o.Quiet = None,
    verbose: o.Verbose = None,
    color: o.Color = None,
    debug: o.Debug = None,
    preset: o.Preset = None,
    config: o.Config = None,
) -> None:
    """See the tokens of a text: ids, pieces, bytes, and the characters that each comes from.

    [bold]Examples[/bold]

      decodecli tokenize "The capital of Japan is"

      decodecli tokenize "日本の首都は" --compare-bos

      decodecli tokenize --file poem.txt --lines -m builtin -m ./other

      decodecli tokenize --ids 1,403,515,418,2723

      decodecli tokenize "Who are you?" --chat -m ./chat-model

      decodecli tokenize --vocab --longest 20
    """
    flags = {name: value for name, value in locals().items() if name in _SETTINGS}
    from decodecli.cli.commands import tokenize_run as tokenizing
    from decodecli.config import resolve

    effective = resolve(flags)
    asked = tokenizing.Asked(
        effective=effective,
        models=tuple(model or [effective.values["model"]]),
        ids=ids,
        chat=bool(chat),
        lines=bool(lines),
        compare_bos=bool(compare_bos),
        vocabulary=bool(vocab),
        grep=grep,
        longest=longest,
        script=script,
        format=format or "table",
    )
    asked.check(text is not None or file is not None)
    if asked.vocabulary:
        tokenizing.list_vocabulary(asked)
    elif asked.ids is not None:
        tokenizing.decode(asked, asked.ids)
    else:
        notices = streams.Notices(effective.output().quiet)
        messages = bool(chat and file and file.endswith(".json"))
        if messages and text is None:
            words, is_default = streams.read_data(file)[0], False
        else:
            words, is_default = streams.read_prompt(text, file, notices.tell)
        if is_default:
            notices.tell(f"no text was given; reading {words!r}")
        tokenizing.encode(asked, words, messages=messages)
