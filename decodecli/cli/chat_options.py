"""The options by which a prompt goes through a chat template."""

from __future__ import annotations

from typing import Annotated

from decodecli.cli import options as o

Chat = Annotated[
    bool | None,
    o.switch("--chat", panel=o.DECODING,
    help="Apply the chat template: PROMPT is the user's message."),
]  # fmt: skip
System = Annotated[
    str | None,
    o.option("--system", panel=o.DECODING, default=None, metavar="TEXT",
    help="The system message before it; implies --chat."),
]  # fmt: skip
AllowSpecial = Annotated[
    bool | None,
    o.switch("--allow-special", panel=o.DECODING,
    help="With --chat: special tokens spelt in a message are read as such."),
]  # fmt: skip
