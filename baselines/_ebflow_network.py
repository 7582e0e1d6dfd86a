"""The paper's networks for a problem: no competitor, but what several of them train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods import Problem

if TYPE_CHECKING:
    from ebflow import EBFlow

__all__ = ["network"]


def network(problem: Problem) -> EBFlow:
    """Make the network of a problem; one that starts from data has a whitening in front.

    Raises:
        ValueError: if a network is to start from data that is no fc, or takes raw pixels.
    """
    from ebflow import architectures
    from ebflow.layers import ActNorm, Layer

    if problem.start != "published":
        if problem.architecture != "fc" or problem.raw_pixel_alpha is not None:
            raise ValueError("only fc starts from whitened data, and not without MaP")
        return architectures.whitened_fc(problem.shape, problem.layers, residual=problem.residual)
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
