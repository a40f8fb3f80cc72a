"""The one error boundary: whatever goes wrong, in a command or before it, ends as a line on stderr and an
exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from decodecli import signals
from decodecli.cli import streams
from decodecli.cli.usage import Group
from decodecli.errors import DecodecliError

R = TypeVar("R")
# ClickException, wherever this version of Typer has it.
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]


class Program(Group):
    """All commands inside the one error boundary: whatever they raise, and whatever goes wrong in
    parsing, `--help` and `--version`, ends as a line on stderr and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            _make_lenient(stream)
        with signals.raised():
            return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return _bounded(lambda: super(Program, self).make_context(*args, **kwargs), debug=False)

    def invoke(self, ctx: Any) -> Any:
        return _bounded(lambda: self._invoke(ctx), debug="--debug" in ctx.args)

    def _invoke(self, ctx: Any) -> Any:
        try:
            os.getcwd()
        except OSError:  # PyTorch would end the process
            raise DecodecliError(
                "the working folder is no longer there", "change to another one: cd"
            ) from None
        threads = os.environ.get("OMP_NUM_THREADS", "1").strip() or "1"
        if not all(part.strip().isdecimal() and int(part) for part in threads.split(",")):
            # libgomp would say so in its own words each time that PyTorch is loaded
            del os.environ["OMP_NUM_THREADS"]
            streams.Notices("--quiet" in ctx.args).tell(
                f"OMP_NUM_THREADS={threads} is not a number of threads, and is left out"
            )
        return super().invoke(ctx)


def _make_lenient(stream: Any) -> None:
    """Have what an encoding lacks spelt in ASCII: a locale without UTF-8 is no reason to fail."""
    if not hasattr(stream, "reconfigure") or str(stream.encoding).lower().startswith("utf"):
        return
    import codecs

    from decodecli.render.escaping import encodable

    def spelt(error: Any) -> tuple[str, int]:
        return encodable(error.object[error.start : error.end], "ascii"), error.end

    codecs.register_error("spelt", spelt)
    stream.reconfigure(errors="spelt")


def _bounded(call: Callable[[], R], debug: bool) -> R:
    try:
        try:
            result = call()
        except typer.Exit:
            streams.flush_stdout()
            raise
        except OSError as error:  # from Rich's or Typer's own writing
            if error.errno in (errno.ENOSPC, errno.EIO) and error.filename is None:
                raise streams.write_error(error) from error
            raise
        streams.flush_stdout()
        return result
    except BrokenPipeError:
        streams.discard_stdout()
        raise typer.Exit(0) from None
    except KeyboardInterrupt as error:
        interrupted = signals.Interrupted.of(error)
        if not streams.takes_nothing(sys.stderr):
            streams.tell(str(interrupted))
        raise typer.Exit(interrupted.exit_code) from None
    except SystemExit as end:  # what Rich makes of a closed pipe
        raise typer.Exit(0) if isinstance(end.__context__, BrokenPipeError) else end from None
    except (typer.Exit, typer.Abort, _ParserError):
        raise
    except Exception as error:
        if debug or os.environ.get("DECODECLI_DEBUG") == "1":
            import traceback

            traceback.print_exc()
        if isinstance(error, DecodecliError):
            streams.tell(f"Error: {error.message}", error.hint)
            raise typer.Exit(error.exit_code) from None
        lines = str(error).strip().splitlines() or [""]
        streams.tell(
            f"Error: unexpected {type(error).__name__}: {lines[0][:300]}",
            "this is a bug in decodecli or a library; --debug shows the traceback",
        )
        raise typer.Exit(1) from None
