"""The shared protocol: what is asked of a flow, how it is measured, stored and shown.

Importing this package imports neither torch nor any flow library. `fit`, `load_model`, `DensityModel` and `FlowDensity`
are imported from `harness.models` when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_MODULES = {"DensityModel": "trained", "FlowDensity": "estimator", "fit": "fitting", "load_model": "trained"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.models.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
