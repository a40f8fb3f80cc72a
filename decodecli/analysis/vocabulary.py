"""A vocabulary, token by token, with the script that each is written in."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from functools import lru_cache

from decodecli.errors import UsageError
from decodecli.models.tokenizer import Tokenizer
from decodecli.records.tokens import VocabularyReport, VocabularyRow
from decodecli.regex_limit import compile_pattern, matches

# The first words of a letter's Unicode name → the script, where it is not simply the first word.
_SCRIPTS = {
    "CJK": "Han", "IDEOGRAPHIC": "Han", "KANGXI": "Han", "FULLWIDTH LATIN": "Latin",
    "HALFWIDTH KATAKANA": "Katakana", "KATAKANA-HIRAGANA": "Katakana",
    "HALFWIDTH HANGUL": "Hangul", "CANADIAN": "Canadian Aboriginal", "MICRO": "Greek",
    "FEMININE": "Latin", "MASCULINE": "Latin", "KELVIN": "Latin", "ANGSTROM": "Latin",
}  # fmt: skip
# Letters and marks of no script: mathematical alphabets, modifiers.
_NO_SCRIPT = (
    "MATHEMATICAL", "MODIFIER", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "SUPERSCRIPT",
    "COMBINING", "VARIATION", "ENCLOSING",
)  # fmt: skip
OTHERS = {"N": "Numbers", "P": "Punctuation", "S": "Symbols", "Z": "Spaces", "C": "Controls"}


def vocabulary(
    tokenizer: Tokenizer,
    *,
    grep: str | None = None,
    longest: int | None = None,
    script: str | None = None,
) -> VocabularyReport:
    """The tokens of a vocabulary by id.

    Args:
        grep: a regular expression to be found in a token's piece or text.
        longest: only so many, those with the longest text first.
        script: only those of this script, in any capitals.

    Raises:
        UsageError: a malformed regular expression, a script that no token is of.
        DecodecliError: a regular expression that takes too long.
    """
    pattern = None
    if grep is not None:
        try:
            pattern = compile_pattern(grep)
        except ValueError as error:
            raise UsageError(
                f"--grep {grep[:40]!r} is not a regular expression: {error}",
                "put a \\ before . * + ? ( [ { to mean the character itself",
            ) from None
    if longest is not None and longest < 1:
        raise UsageError(f"--longest must be at least 1, got {longest}", "20 is a usual choice")
    every = []
    for token_id in sorted({*tokenizer.vocabulary().values()}):
        piece, data = tokenizer.piece(token_id) or "", tokenizer.token_bytes(token_id)
        kind = tokenizer.token_kind(token_id, data)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        category = {"special": "Special", "byte": "Bytes"}.get(kind) or script_of(text or "")
        every.append(VocabularyRow(token_id, piece, text, data, kind, category))
    scripts = Counter(row.script for row in every)
    rows = every if script is None else _of_script(script, every, scripts)
    if pattern is not None:
        rows = [r for r in rows if matches(pattern, r.token) or matches(pattern, r.text or "")]
    if longest is not None:
        rows = sorted(rows, key=lambda row: (-len(row.text or ""), row.token_id))[:longest]
    return VocabularyReport(
        model=tokenizer.name,
        size=len(every),
        rows=tuple(rows),
        scripts=dict(scripts.most_common()),
        byte_level=tokenizer.kind == "byte_level",
    )


def _of_script(
    script: str, rows: list[VocabularyRow], scripts: Counter[str]
) -> list[VocabularyRow]:
    names = {name.lower(): name for name in scripts}
    if (name := names.get(script.lower())) is not None:
        return [row for row in rows if row.script == name]
    near = difflib.get_close_matches(script.lower(), names, n=1)
    hint = f"did you mean {names[near[0]]}? " if near else ""
    most = ", ".join(name for name, _ in scripts.most_common(8))
    raise UsageError(
        f"--script {script[:40]}: no token is of that script", f"{hint}there are: {most}"
    )


@lru_cache(maxsize=65536)
def script_of(text: str) -> str:
    """The script of a text's letters: `Latin`, `Han`, …, `Mixed` when there are several; without
    letters what it is made of: `Numbers`, `Punctuation`, `Symbols`, `Spaces`, `Controls`, `Mixed`."""
    names = {script for character in text if (script := _letter_script(character))}
    if not names:
        kinds = {OTHERS.get(unicodedata.category(c)[0], "Symbols") for c in text}
        names = (kinds - {"Spaces", "Controls"} or kinds) or {"Controls"}
    return names.pop() if len(names) == 1 else "Mixed"


@lru_cache(maxsize=65536)
def _letter_script(character: str) -> str | None:
    """The script by the letter's Unicode name; None for what is no letter of a script."""
    if unicodedata.category(character)[0] not in "LM":
        return None
    words = unicodedata.name(character, "").split()
    if not words or words[0] in _NO_SCRIPT:
        return None
    return _SCRIPTS.get(" ".join(words[:2])) or _SCRIPTS.get(words[0]) or words[0].capitalize()
