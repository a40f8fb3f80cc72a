"""Pages and fragments of HTML: templates are files, and whatever they are given is escaped."""

from __future__ import annotations

import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError, WriteError
from decodecli.render.escaping import safe_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """Fill in a file of `templates/`; strings lose control characters and are escaped."""
    return _environment().get_template(template).render(values)


def check_page(path: str) -> None:
    """Refuse a page's file that could not be written, before anything is loaded.

    Raises:
        UsageError: the name is that of no page.
        WriteError: there is no such folder.
    """
    folder = Path(os.path.expanduser(path)).parent
    if not path.lower().endswith((".html", ".htm")):
        raise UsageError(f"--html {path}: the file name must end in .html", "for example page.html")
    if not folder.is_dir():
        raise WriteError(f"cannot write {path}: there is no folder {folder}", "make it first")


def asset(name: str, more: str = "") -> Markup:
    """A style sheet or script of `templates/`, with `more` behind it, to stand in a page as it is."""
    from markupsafe import Markup

    return Markup((resources.files(__package__) / "templates" / name).read_text("utf-8") + more)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def safe(value: Any) -> Any:
        is_text = isinstance(value, str) and not isinstance(value, Markup)
        return safe_text(value) if is_text else value

    loader = PackageLoader("decodecli.render.html", "templates")
    return Environment(
        loader=loader, autoescape=True, finalize=safe, undefined=StrictUndefined, trim_blocks=True
    )
