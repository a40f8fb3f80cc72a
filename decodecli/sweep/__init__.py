"""Many settings on many prompts from one loaded model: the grid, the run, what is kept of it.

The package can be called: `decodecli.sweep(…)` is `decodecli.api.sweep`.
"""

import sys
import types
from typing import Any


class _CallablePackage(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from decodecli import api

        return api.sweep(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
