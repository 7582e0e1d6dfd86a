"""Hyper-parameters that papers publish for the density-estimation sets of MAF: no competitor itself.

MAF and MADE: as in the authors' own script (https://github.com/gpapamak/maf), the larger networks that it tries. Neural
spline flows: from the appendix of https://arxiv.org/abs/1906.04032 as we remember it, which could not be opened when
this was written; cosine schedule, clipping at 5, splines on [-3, 3] and linear layers L U between them are the defaults
of the authors' script (https://github.com/bayesiains/nsf). The patches get what is published for BSDS300.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.methods import OwnRecipe

__all__ = ["autoregressive_splines", "coupling_splines", "masked_autoregressive"]

_SETS = ("power", "gas", "hepmass", "miniboone", "bsds300")
_UNTIL_IT_STOPS = 10**7  # steps, more than any training takes before its validation no longer improves


def coupling_splines() -> Mapping[str, OwnRecipe]:
    """Return the recipes of RQ-NSF (C), by dataset."""
    return _splines(layers=(10, 10, 20, 10, 20), blocks=(2, 2, 1, 1, 1), hidden=(256, 256, 128, 32, 128))


def autoregressive_splines() -> Mapping[str, OwnRecipe]:
    """Return the recipes of RQ-NSF (AR), by dataset."""
    return _splines(layers=(10, 10, 10, 10, 10), blocks=(2, 2, 2, 1, 2), hidden=(256, 256, 256, 64, 512))


def masked_autoregressive(layers: int, learning_rate: float) -> Mapping[str, OwnRecipe]:
    """Return the recipes of MAF with L layers, or of MADE, by dataset."""
    training: dict[str, Any] = {"learning_rate": learning_rate, "weight_decay": 1e-6, "decay": 1.0, "patience": 30}
    recipes = {
        name: OwnRecipe(
            _UNTIL_IT_STOPS,
            training,
            {"batch": 100, "layers": layers, "hidden": hidden},
            "an ActNorm in front instead of batch normalisation between the layers",
        )
        for name, hidden in zip(_SETS, (100, 100, 512, 512, 1024), strict=True)
    }
    return recipes | {"patches": recipes["bsds300"]}


def _splines(layers: tuple[int, ...], blocks: tuple[int, ...], hidden: tuple[int, ...]) -> Mapping[str, OwnRecipe]:
    recipes = {
        name: OwnRecipe(
            steps,
            {"learning_rate": rate, "schedule": "cosine", "clip_norm": 5.0},
            {
                "batch": batch,
                "layers": layer_count,
                "blocks": block_count,
                "hidden": units,
                "bins": bins,
                "dropout": dropout,
                "tail_bound": 3.0,
                "mixing": True,
            },
        )
        for name, steps, rate, batch, bins, dropout, layer_count, block_count, units in zip(
            _SETS,
            (400_000, 400_000, 400_000, 200_000, 400_000),
            (5e-4, 5e-4, 5e-4, 3e-4, 5e-4),
            (512, 512, 256, 128, 512),
            (8, 8, 8, 4, 8),
            (0.0, 0.1, 0.2, 0.2, 0.2),
            layers,
            blocks,
            hidden,
            strict=True,
        )
    }
    return recipes | {"patches": recipes["bsds300"]}
