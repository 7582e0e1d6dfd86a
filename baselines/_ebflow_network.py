"""The paper's networks for a problem: no competitor, but what several of them train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods import Problem

if TYPE_CHECKING:
    from ebflow import EBFlow

__all__ = ["network"]


def network(problem: Problem) -> EBFlow:
    """Make the network of a problem."""
    from ebflow import architectures
    from ebflow.layers import ActNorm, Layer

    before: tuple[Layer, ...] = ()
    if problem.raw_pixel_alpha is not None:
        before = architectures.raw_pixels(problem.shape, levels=problem.levels, alpha=problem.raw_pixel_alpha)
    if problem.architecture == "toy":
        flow = architectures.toy(problem.shape, problem.layers)
    elif problem.architecture == "glow":
        flow = architectures.glow(problem.shape, problem.layers, before=before)
    else:
        build = {"fc": architectures.fc, "cnn": architectures.cnn}[problem.architecture]
        flow = build(problem.shape, problem.layers, residual=problem.residual, before=before)
    for layer in flow.constant_layers():
        if isinstance(layer, ActNorm) and problem.frozen_actnorm:
            layer.requires_grad_(False)
    return flow
