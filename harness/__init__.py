"""The shared protocol: what is asked of a flow, how it is measured, stored and shown.

Importing this package imports neither torch nor any flow library. `fit`, `load_model`, `DensityModel`, `FlowDensity`,
`load_results`, `leaderboard` and `SCHEMA_VERSION` are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_MODULES = {
    "DensityModel": "models.trained",
    "FlowDensity": "models.estimator",
    "SCHEMA_VERSION": "results.file",
    "fit": "models.fitting",
    "leaderboard": "report.tables.leaderboard",
    "load_model": "models.trained",
    "load_results": "results.store",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
