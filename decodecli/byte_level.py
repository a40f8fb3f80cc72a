"""How byte-level BPE vocabularies write bytes as characters."""

from __future__ import annotations


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's reversible alphabet (Radford et al. 2019), character → byte: printable Latin-1 stands for
    itself, the other bytes follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(0x100 + index): byte for index, byte in enumerate(others)
    }


ALPHABET = byte_level_alphabet()
