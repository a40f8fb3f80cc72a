"""Log lines and warnings of other libraries, kept off both streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_libraries(allowed: bool) -> Iterator[None]:
    """Silence log lines and warnings of other packages, unless they are allowed."""
    if allowed:
        yield
        return
    import logging
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
