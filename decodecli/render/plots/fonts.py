"""Which fonts a picture needs so that every character has a glyph, and a spelling for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

BASE = "DejaVu Sans"  # comes with matplotlib

# Tried first, in this order; then every other upright font of normal weight, by name.
_PREFERRED = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei"),
    *("Noto Sans CJK JP", "Noto Sans JP", "Hiragino Sans", "Yu Gothic"),
    *("Noto Sans CJK KR", "Noto Sans KR", "Apple SD Gothic Neo", "Malgun Gothic"),
    *("WenQuanYi Micro Hei", "Arial Unicode MS", "Noto Sans", "Noto Sans Thai", "Thonburi"),
    *("Leelawadee UI", "Noto Sans Devanagari", "Kohinoor Devanagari", "Nirmala UI"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Symbols", "Noto Sans Symbols 2"),
    *("Noto Emoji", "Symbola", "Segoe UI Symbol", "Segoe UI"),
)
# Boxes for every character; letters under the wrong codes; pictures that cannot be drawn as outlines.
_UNFIT = ("Last Resort", ".LastResort", "cm", "STIXNonUnicode", "STIXSize", "Symbol", "Wingdings")
_MOST_OPENED = 200
_MOST_SPELT = 3


@dataclass(frozen=True)
class Fonts:
    """Font families that together draw what they can of some texts, the first one first."""

    families: tuple[str, ...]
    missing: frozenset[str] = frozenset()

    def spell(self, text: str) -> str:
        """`text` with `<U+65E5 672C>` for characters that no font has, three of them at most."""
        parts = []
        for lost, run in groupby(text, self.missing.__contains__):
            characters = list(run)
            if not lost:
                parts += characters
                continue
            codes = [f"{ord(character):04X}" for character in characters[:_MOST_SPELT]]
            parts.append(f"<U+{' '.join(codes)}{' …' * (len(characters) > _MOST_SPELT)}>")
        return "".join(parts)


def fonts_for(texts: Iterable[str]) -> Fonts:
    """The fewest families, in order of preference, with a glyph for each character of `texts`."""
    wanted = frozenset("".join(texts))
    return _choose(wanted - {"\n"})


@lru_cache(maxsize=64)
def _choose(wanted: frozenset[str]) -> Fonts:
    left = {character for character in wanted if ord(character) not in _glyphs(BASE)}
    families = [BASE]
    for name in _candidates(_language(wanted))[:_MOST_OPENED] if left else ():
        covered = {character for character in left if ord(character) in _glyphs(name)}
        if covered:
            families.append(name)
            left -= covered
        if not left:
            break
    return Fonts(tuple(families), frozenset(left))


def _language(characters: frozenset[str]) -> str:
    """Which form of Han characters suits: Japanese beside kana, Korean beside Hangul."""
    if any("\u3040" <= c <= "\u30ff" for c in characters):
        return "JP"
    return "KR" if any("\uac00" <= c <= "\ud7af" for c in characters) else "SC"


@lru_cache(maxsize=4)
def _candidates(language: str) -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {
        entry.name
        for entry in fontManager.ttflist
        if entry.style == "normal" and entry.weight in (400, "normal", "regular")
    }
    fit = {name for name in installed if not name.startswith(_UNFIT) and "Color" not in name}
    known = [name for name in _PREFERRED if name in fit]
    known.sort(key=lambda name: not name.endswith(f" {language}"))  # stable
    sans_first = sorted(fit.difference(known, {BASE}), key=lambda name: ("Sans" not in name, name))
    return (*known, *sans_first)


@lru_cache(maxsize=256)
def _glyphs(family: str) -> Any:
    """The characters of the very font file that matplotlib picks for a family."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        path = findfont(FontProperties(family=family), fallback_to_default=False)
        return get_font(path).get_charmap().keys()
    except (ValueError, OSError, RuntimeError):
        return frozenset[int]()
