"""python -m decodecli."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    # Spinning barriers cost a small model most of its speed beside another busy process; this must
    # be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.stderr is None:  # closed; rich would write to stdout instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        from decodecli.cli.app import app

        app(prog_name="decodecli")
    except KeyboardInterrupt:  # before the app's own boundary stands
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
