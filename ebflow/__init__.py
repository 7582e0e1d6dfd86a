"""Energy-based normalizing flows (Chao et al., NeurIPS 2023, https://arxiv.org/abs/2305.15267).

A flow is a chain of invertible layers from data to a standard normal latent. The layers whose Jacobian does not depend
on the input contribute a constant to the log-density, so score matching trains the flow without ever computing it::

    flow = ebflow.architectures.fc((784,))
    loss = ebflow.DSM(sigma=0.3)(flow, x)       # no determinant anywhere
    flow.log_prob(x)                            # exact, normalised; under no_grad log Z is computed once
"""

from ebflow import architectures, initialization, langevin, layers, normalizer, objectives
from ebflow.amortized import AmortizedML
from ebflow.flow import EBFlow, SingularJacobianError
from ebflow.objectives import DSM, FDSSM, LCSS, ML, SML, SNL, SSM, Behind, ExactSM, LowEnergy, Objective, TaylorSSM

__all__ = [
    "DSM",
    "FDSSM",
    "LCSS",
    "ML",
    "SML",
    "SNL",
    "SSM",
    "AmortizedML",
    "Behind",
    "EBFlow",
    "ExactSM",
    "LowEnergy",
    "Objective",
    "SingularJacobianError",
    "TaylorSSM",
    "architectures",
    "initialization",
    "langevin",
    "layers",
    "normalizer",
    "objectives",
]
