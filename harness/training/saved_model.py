"""The file of a trained model: its weights, and everything that is needed to use them on the data's own values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from harness import __version__
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import (
    Dequantize,
    GaussianNoise,
    Identity,
    LogitPreprocessing,
    Preprocessing,
    Standardize,
)
from harness.errors import InputError, one_line
from harness.methods import Method, Problem
from harness.results.provenance import glance
from harness.training.checkpoints import read_tensors, write_tensors

_FORMAT = "ebflow-bench model 1"
_MAPS = {kind.__name__: kind for kind in (Identity, Standardize, GaussianNoise, Dequantize, LogitPreprocessing)}


@dataclass(frozen=True)
class Description:
    """What a trained model is, besides its weights.

    Attributes:
        method: Name of the method.
        problem: Problem that the model was built for: architecture, shape, dtype and all else.
        preprocessing: Map from the data's own values to the space that the method models.
        recipe: Name of the training configuration.
        data: Name of the data that the model was trained on.
        columns: Names of the columns of a user's own table; none where it has none.
        versions: Versions of this project, Python, torch and the method's libraries.
    """

    method: str
    problem: Problem
    preprocessing: Preprocessing
    recipe: str
    data: str
    columns: tuple[str, ...]
    versions: Mapping[str, str]


def describe(method: Method, problem: Problem, data: Dataset, recipe: str) -> Description:
    """Describe a model of a method that is trained on a dataset, with the versions of this process."""
    versions = {"ebflow-bench": __version__, **glance(method.requires).versions}
    return Description(method.name, problem, data.preprocessing, recipe, data.name, data.columns, versions)


def write_model(path: Path, description: Description, weights: Mapping[str, Tensor]) -> None:
    """Write a model in the safetensors format, which holds no code; the file is whole at any moment."""
    preprocessing = description.preprocessing
    fields = {
        **vars(description),
        "problem": dataclasses.asdict(description.problem),
        "preprocessing": {"kind": type(preprocessing).__name__, **vars(preprocessing)},
    }
    write_tensors(path, weights, {"format": _FORMAT, "model": json.dumps(fields)})


def read_model(path: Path) -> tuple[Description, dict[str, Tensor]]:
    """Read a model's description and weights.

    Raises:
        InputError: if the file is missing or damaged, or another program or another version wrote it.
    """
    try:
        tensors, metadata = read_tensors(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error).removeprefix("ValueError: ")
        raise InputError(f"{path} is no model that `harness train --save` wrote ({reason})") from error
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{path} is no model that `harness train --save` wrote, or one of another version")
    fields: dict[str, Any] = {}
    try:
        fields = json.loads(metadata["model"])
        problem = Problem(**_with_tuples(fields.pop("problem")))
        kind = _MAPS[fields["preprocessing"].pop("kind")]
        preprocessing = kind(**_with_tuples(fields.pop("preprocessing")))
        description = Description(problem=problem, preprocessing=preprocessing, **_with_tuples(fields))
    except (KeyError, TypeError, ValueError) as error:
        version = fields.get("versions", {}).get("ebflow-bench", "unknown")
        raise InputError(f"{path} was written by version {version}, which {__version__} cannot read") from error
    return description, tensors


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as they were before JSON made lists of their tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
