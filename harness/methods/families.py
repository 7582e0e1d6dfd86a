"""The families that methods are compared by: what is trained, and what a linear layer is allowed to be.

Score matching, with linear layers of any form; maximum likelihood of dense layers with every determinant or inverse
(exact dense); maximum likelihood of dense layers that computes them now and then or never (determinant-free dense);
maximum likelihood of layers that are triangular, LU, QR and the like (restricted matrices); flows without linear layers
of their own (other flows); flows that are regressed, on velocities or on pairs of points (regression); and what is
solved in closed form.
"""

from __future__ import annotations

from harness.methods.contract import matches_scores

MATCHED = "score matching"
EXACT = "exact dense"
FREE = "determinant-free dense"
RESTRICTED = "restricted matrices"
OTHER = "other flows"
REGRESSED = "regression"
CLOSED = "closed form"

LIKELIHOOD_OF_DENSE = (EXACT, FREE)
"""The families that maximise the likelihood of layers that may be any matrix, as those of score matching may."""

LIKELIHOOD = (EXACT, FREE, RESTRICTED, OTHER)
"""The families that maximise the likelihood by steps."""

_EXACT_OBJECTIVES = ("ml", "sml")
_REGRESSIONS = ("fm", "regression")


def family(objective: str, linear: str, declared: str = "") -> str:
    """Return the family of a method by its objective and the form of its linear layers.

    Args:
        objective: Name of the training objective. One that is not known here maximises the likelihood.
        linear: How the linear layers are parametrised.
        declared: What the method says of its training, `Method.family`; empty if the objective's name tells.
    """
    if matches_scores(objective, declared):
        return MATCHED
    if objective == "closed-form":
        return CLOSED
    if objective in _REGRESSIONS:
        return REGRESSED
    if linear in ("none", ""):
        return OTHER
    if linear != "dense":
        return RESTRICTED
    return EXACT if objective in _EXACT_OBJECTIVES else FREE
