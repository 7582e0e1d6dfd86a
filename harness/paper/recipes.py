"""The profiles and training recipes by name, and the depths of the paper's networks: all that needs no torch."""

from __future__ import annotations

from typing import Literal, get_args

ProfileName = Literal["quick", "paper"]
PROFILES: tuple[str, ...] = get_args(ProfileName)

PUBLISHED_LAYERS = {"fc": 2, "cnn": 6, "glow": 32, "toy": 11, "multimodal": 11}
"""L of the paper's networks."""

RECIPES = {
    "paper": "as published, without the regulariser and spectral normalisation of the authors' code",
    "paper-unaugmented": "paper, but the training images of CIFAR-10 are not mirrored and moved",
    "tuned": "the same network and parameter count; Adam with a cosine schedule; dense and LU layers of "
    "fc from whitened data, and their last layer refitted in closed form",
    "tuned-unrefitted": "tuned, but the last layer stays as the objective trained it",
    "tuned-logit-space": "tuned, but scores are matched in the logit space and not behind the whitening",
    "tuned-smooth": "tuned, but with smooth dequantisation noise: the sigmoid of N(0, 1.25^2) instead of uniform; its "
    "density counts in the NLL, which bounds the same number",
    "tuned-smooth-unrefitted": "tuned-smooth, but the last layer stays as the objective trained it",
    "tuned-augmented": "tuned, but training images are mirrored and moved by a pixel at random, as in the authors' "
    "code for CIFAR-10; fc starts from 120,000 such images and learns slowly",
    "snf": "as Self Normalizing Flows trains the same network: Adam at a constant rate of 0.0001, no averaged weights, "
    "all linear layers from the identity",
    "snf-negated": "snf, but from -I and biases of 1, as the paper starts",
    "snf-orthogonal": "snf, but from random orthogonal matrices",
    "snf-whitened": "snf, but from whitened data",
    "own": "the sizes, batch, rate and steps that the method's own paper publishes for tabular data (for patches: "
    "BSDS300)",
    "official-lambda": "adds the mean energy to the loss with the weight that the authors' code comes to on CIFAR-10: "
    "0.001 / C for SSM and DSM, and 0.001 / epsilon^2 for FDSSM, 300 times as much",
    "official-actnorm": "leaves ActNorm at its data-dependent start, as in the authors' code, where it is not trained",
}
"""Names of the configurations, and what each one changes."""
