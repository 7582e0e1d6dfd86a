"""The families that methods are compared by: what is trained, and what a linear layer is allowed to be."""

from __future__ import annotations

from harness.methods.contract import SCORE_MATCHING

MATCHED = "score matching"
EXACT = "exact dense"
FREE = "determinant-free dense"
RESTRICTED = "restricted matrices"
OTHER = "other flows"
CLOSED = "closed form"

FAMILIES = (MATCHED, EXACT, FREE, RESTRICTED, OTHER, CLOSED)
"""The names of all families, in the order in which they are told.

Score matching, with linear layers of any form; maximum likelihood of dense layers with every determinant or inverse
(exact dense); maximum likelihood of dense layers that computes them now and then or never (determinant-free dense);
maximum likelihood of layers that are triangular, LU, QR and the like (restricted matrices); flows without linear layers
of their own (other flows); and what is solved in closed form.
"""

LIKELIHOOD_OF_DENSE = (EXACT, FREE)
"""The families that maximise the likelihood of layers that may be any matrix, as those of score matching may."""

LIKELIHOOD = (EXACT, FREE, RESTRICTED, OTHER)
"""The families that maximise the likelihood by steps."""

_EXACT_OBJECTIVES = ("ml", "sml")


def family(objective: str, linear: str, matches_scores: bool | None = None) -> str:
    """Return the family, one of `FAMILIES`, of a method by its objective and the form of its linear layers.

    Args:
        objective: Name of the training objective. One that is not known here maximises the likelihood.
        linear: How the linear layers are parametrised.
        matches_scores: Whether the method matches scores, where it says so itself; None if the objective's name tells.
    """
    if objective in SCORE_MATCHING if matches_scores is None else matches_scores:
        return MATCHED
    if objective == "closed-form":
        return CLOSED
    if linear in ("none", ""):
        return OTHER
    if linear != "dense":
        return RESTRICTED
    return EXACT if objective in _EXACT_OBJECTIVES else FREE
