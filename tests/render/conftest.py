"""Lets these tests import their helpers, `made_up` and `emulator`, by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
