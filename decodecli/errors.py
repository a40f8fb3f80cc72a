"""One small family of errors: a message that says what is wrong, a hint that says what to do."""

from __future__ import annotations


class DecodecliError(Exception):
    """Something the user can act on.

    Args:
        message: one line that says what is wrong.
        hint: one line that says what to do about it, or "".

    `exit_code` is what the command line ends with.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(DecodecliError, ValueError):
    """Wrong usage: a bad value, an unknown key, a file named by an option that is not there.

    `option` is the name of the setting whose value is wrong, "" where it is not one setting's.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "", option: str = "") -> None:
        super().__init__(message, hint)
        self.option = option


class LoadError(DecodecliError):
    """A model or tokenizer is missing, unreadable or of a kind that cannot be used."""


class PickledWeightsError(LoadError):
    """A model's weights are pickled, which can run code when they are loaded."""


class PromptError(DecodecliError):
    """The prompt cannot be used with this model."""


class DecodeError(DecodecliError):
    """Decoding failed on the way: logits that are not finite, memory that ran out."""


class WriteError(DecodecliError):
    """Output could not be written."""


class MissingLibraryError(DecodecliError, ImportError):
    """A library that only this needs is not installed."""
