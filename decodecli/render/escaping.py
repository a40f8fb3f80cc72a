"""Token pieces and running text as something a terminal may show.

Two promises hold for any input: nothing that could steer a terminal (controls, escapes, bidi
controls) comes out, and `rich.cells.cell_len` measures what comes out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from rich.cells import cell_len

from decodecli.byte_level import ALPHABET

SPACE, NEWLINE, TAB = "␣", "↵", "⇥"

# C0 has control pictures of its own (U+2400 …); the three that text is made of get the usual signs.
_PICTURES: dict[str, str] = {chr(code): chr(0x2400 + code) for code in range(32)}
_PICTURES |= {"\x7f": "␡", " ": SPACE, "▁": SPACE, "\n": NEWLINE, "\t": TAB}

# Letters and symbols in name, yet nothing to see: Hangul fillers, a blank Braille cell.
_BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u2800")

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

# What running text must not hand to a terminal. Joiners, marks and variation selectors are not here:
# scripts and emoji are written with them, and they move no cursor.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb"
    "\ud800-\udfff\U000e0001]"
)


@lru_cache(maxsize=4096)  # the tokens that come again; bounded whatever the vocabulary
def visible(piece: str, byte_level: bool = False) -> str:
    """One vocabulary piece on one line, every character of it to be seen.

    A space (or `▁`) is `␣`, a newline `↵`, a tab `⇥`, a carriage return `␍`; a byte token stays
    `<0xE6>` unless it is one of these. Other characters without a shape are spelt `<U+200B>`, and a
    mark with nothing to stand on gets a dotted circle.

    Args:
        piece: the piece exactly as the vocabulary has it.
        byte_level: whether it is spelt in GPT-2's byte alphabet (`Ġ` for a space). Then its bytes
            are read as UTF-8, and those that are not shown as `<0xNN>`.
    """
    if match := _BYTE_TOKEN.fullmatch(piece):
        byte = chr(int(match[1], 16))
        return _PICTURES[byte] if byte in " \n\t\r" else piece
    stray_bytes = False  # whether a lone surrogate stands for a byte that is no UTF-8
    if byte_level:
        try:
            data = bytes([ALPHABET[character] for character in piece])
        except KeyError:  # an added token is not spelt in the alphabet
            pass
        else:
            piece, stray_bytes = data.decode("utf-8", "surrogateescape"), True
    if piece.isascii() and piece.isprintable():
        return piece.replace(" ", SPACE)
    parts: list[str] = []
    stands_alone = True  # whether a mark that came now would have no letter under it
    for character in piece:
        picture = _picture(character)
        if stray_bytes and "\udc80" <= character <= "\udcff":
            picture = f"<0x{ord(character) - 0xDC00:02X}>"
        if picture is not None:
            parts.append(picture)
            stands_alone = True
            continue
        if stands_alone and "\U0001f3fb" <= character <= "\U0001f3ff":  # a skin tone is no mark
            parts.append(f"<U+{ord(character):04X}>")
            continue
        if stands_alone and unicodedata.category(character)[0] == "M":
            parts.append("◌")
        parts.append(character)
        stands_alone = False
    return "".join(parts)


def _picture(character: str) -> str | None:
    """What stands for `character`, or None when it can be seen itself."""
    if character in _PICTURES:
        return _PICTURES[character]
    selects_variation = (
        "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    )
    if not character.isprintable() or character in _BLANKS or selects_variation:
        return f"<U+{ord(character):04X}>"
    return None


def safe_text(text: str) -> str:
    """Running text that may be written to a terminal: newlines and tabs kept, whatever could steer
    it (ESC, C1, carriage return, bidi controls, lone surrogates) replaced by a picture."""
    if text.isprintable():
        return text
    return _STEERING.sub(lambda match: _picture(match[0]) or "", text)


def spelt_out(text: str) -> str:
    """A message as it may be written to a terminal: lines kept, and beside what `safe_text` replaces,
    every character without a shape (a zero-width space, a joiner) spelt `<U+200B>`: what a message
    quotes may be told apart by it."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in " \n\t▁" else _picture(c) or c for c in text)


def one_line(text: str) -> str:
    """`safe_text` with newlines and tabs shown as signs: for names and titles."""
    return safe_text(text).replace("\n", NEWLINE).replace("\t", TAB)


def model_title(name: str) -> str:
    """A model's name for a title: of a path its last part, a hub name whole."""
    path = name.replace("\\", "/").rstrip("/")
    is_path = name.startswith(("/", "~", ".")) or path.count("/") > 1 or "\\" in name
    return one_line(path.rpartition("/")[2] if is_path else name) or one_line(name)


def guess_byte_level(pieces: Iterable[str], before: bool = False) -> bool:
    """Whether pieces look like GPT-2's byte alphabet: some `Ġ` or `Ċ` in front, or it was so `before`,
    and no `▁`."""
    for piece in pieces:
        if "▁" in piece:
            return False
        before = before or piece.startswith(("Ġ", "Ċ"))
    return before


def clip(text: str, width: int) -> str:
    """`text` in at most `width` cells, with `…` where it was cut."""
    if cell_len(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += cell_len(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def pad(text: str, width: int, right: bool = False) -> str:
    """`text` clipped or filled up to exactly `width` cells, standing left or `right`."""
    text = clip(text, width)
    gap = " " * (width - cell_len(text))
    return gap + text if right else text + gap


def encodable(text: str, encoding: str) -> str:
    """`text` for a stream that is not UTF-8: the signs in ASCII, other characters spelt out."""
    text = text.translate(_ASCII_SIGNS)
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return "".join(c if c.isascii() else f"<U+{ord(c):04X}>" for c in text)
    return text


# The signs of our own drawings in ASCII, cell for cell.
DRAWING_SIGNS = str.maketrans("▸·→←–…−─│▌×≥≠○■", ">-><-~--|_x>!o#")
_ASCII_SIGNS = str.maketrans(
    {picture: f"<U+{ord(character):04X}>" for character, picture in _PICTURES.items()}
    | {SPACE: "_", NEWLINE: "\\n", TAB: "\\t", "␍": "\\r", "…": "~", "−": "-"}
)
