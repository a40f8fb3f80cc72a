"""Being part of a Ray cluster for a while, without a word from Ray on either stream."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from decodecli.errors import DecodecliError, LoadError
from decodecli.signals import postponed

_OBJECT_STORE = 80_000_000  # bytes of shared memory for a cluster of our own: results are small


def import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise LoadError("--engine ray needs Ray", "pip install 'decodecli[ray]'") from error
    return ray


@contextlib.contextmanager
def connected(ray: Any, address: str | None, cpus: int | None) -> Iterator[bool]:
    """Be part of a cluster, a new one where no address is given; whether it is new.

    A program that is part of one already stays so. Ray says nothing on either stream.
    """
    with _quiet(ray):
        if ray.is_initialized():
            yield False
            return
        folder = None
        try:
            if address is None:
                # Below a short path, as those of sockets must be, and removed in the end.
                folder = tempfile.mkdtemp(
                    prefix="decodecli-ray-", dir="/tmp" if os.path.isdir("/tmp") else None
                )
            _connect(ray, address, cpus, folder)
            yield address is None
        finally:
            ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _connect(ray: Any, address: str | None, cpus: int | None, folder: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    on_term = signal.getsignal(signal.SIGTERM)  # Ray puts its own there
    try:
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            options |= {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": folder}
            options["object_store_memory"] = _OBJECT_STORE
        else:  # fail at once where nothing answers: Ray would try for two minutes, and write about it
            head = address
            with contextlib.suppress(Exception):  # not a documented function, so it may go away
                head = ray._private.services.canonicalize_bootstrap_address(address) or address
            host, _, port = head.rpartition(":")
            if "/" not in host and port.isdecimal():
                socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        # Ctrl-C in the middle of connecting has Ray end with a segmentation fault.
        with _no_stderr(), postponed():
            ray.init(address="local" if address is None else address, **options)
    except Exception as error:  # each way of not being there has its own
        raise _unreachable(address, error) from error
    finally:
        with contextlib.suppress(ValueError, TypeError):  # not the main thread, not Python's
            signal.signal(signal.SIGTERM, on_term)


def _unreachable(address: str | None, error: Exception) -> DecodecliError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    reason = " ".join(reason.split())
    if address is None:
        return DecodecliError(f"Ray does not start: {reason}", "--engine local does without Ray")
    cluster = "the cluster of this machine" if address == "auto" else address
    cause: BaseException | None = error
    while cause is not None:  # its traceback may be in another one's message
        if "AuthenticationError" in f"{type(cause)} {cause}":
            hint = (
                "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless ~/.ray/auth_token is the "
                "cluster's"
            )
            return DecodecliError(f"{cluster} asks for a token", hint)
        cause = cause.__cause__ or cause.__context__
    hint = "start one with ray start --head, or leave --address out to use this machine alone"
    if address == "auto":
        return DecodecliError("this machine is part of no Ray cluster", hint)
    return DecodecliError(f"no Ray cluster can be reached at {cluster}: {reason}", hint)


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Keep Ray from printing what its daemons say, such as the death of a worker."""
    printing = ray._private.worker
    before = getattr(printing, "_worker_logs_enabled", True)
    printing._worker_logs_enabled = False
    try:
        yield
    finally:
        printing._worker_logs_enabled = before


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Keep off standard error what a library writes there past Python, for a while."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def cause(error: BaseException) -> str:
    """The innermost cause of an error on another machine, which is the last line of Ray's many."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
