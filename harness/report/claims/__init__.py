"""The paper's claims in its order, each with the rule by which rows of results decide it.

`results/README.md` is the reading by hand; what is here is computed, from whatever rows there are.
"""

from __future__ import annotations

from harness.report.claims import sampling, speed, trainings
from harness.report.claims.evidence import (
    AFTER,
    AS_GOOD,
    FASTER,
    QUESTIONS,
    USE,
    VERDICT_RULE,
    Claim,
    Evidence,
    Outcome,
    Verdict,
    judge,
)

__all__ = ["CLAIMS", "QUESTIONS", "VERDICT_RULE", "Claim", "Evidence", "Outcome", "Verdict", "judge"]

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "speed",
        "An iteration of score matching takes less time than one of maximum likelihood.",
        "On a GPU, fc: 8 times (MNIST) and 11 times (CIFAR-10) by DSM; cnn: 87 and 920 times, against determinants "
        "taken on the CPU.",
        "For: score matching is faster at every measured D, intervals apart, and by at least the published factor "
        "wherever there is one for that D. Partly: it is faster at the largest D. Against: it is not faster there. "
        "Methods are compared inside one run alone, where they take turns. Maximum likelihood with restricted matrices "
        f"(LU and the like) counts too: for the claim if it takes at least {speed.REACH:g} times the time of DSM at "
        "the largest D, partly if more than once, else against.",
        "harness runtime --dims 64,256,784,1600,3072",
        speed.speedup,
        FASTER,
        "headline",
    ),
    Claim(
        "cubic",
        "Score matching is needed to train unrestricted linear layers without their cubic cost.",
        "The paper compares with maximum likelihood that computes every determinant at every step.",
        "Against: the fastest likelihood training of such layers that does not compute a determinant at every step "
        "(amortised, relative gradient, self-normalizing) takes at most the time of the fastest score matching, at "
        "every D of a run; and amortised maximum likelihood ends at most "
        f"{trainings.AMORTISED:.1%} above the exact one and not above score matching. Partly: it is as fast at the "
        "largest D alone. For: it is slower there, or ends higher.",
        "harness runtime --dims 64,256,784,1600,3072 && harness reproduce amortised-mnist-fc --profile paper --seeds 1",
        lambda rows: [*speed.without_matching(rows), *trainings.without_matching(rows)],
        USE,
        "amortised-mnist-fc-*-nll",
    ),
    Claim(
        "scaling",
        "The time of score matching grows as D²L, that of maximum likelihood as D³L.",
        "The paper states complexities; its curves have slopes of 1.45 to 2.3 for maximum likelihood.",
        f"Slopes of log time over log D are taken over at least {speed.POINTS} sizes from D = {speed.LARGE} on. "
        f"For: the slope is at most {2 + speed.SLOPE:g} by score matching and at least {3 - 2 * speed.SLOPE:g} by "
        "maximum likelihood, whose products of the batch are D². "
        f"Partly: the slopes are at least {speed.SLOPE:g} apart. The slope in L counts for the claim within "
        f"{speed.SLOPE:g} of 1.",
        "harness runtime --dims 784,1600,3072 && harness runtime --dims 784 --layers 2,4,8,16",
        speed.scaling,
        FASTER,
        "runtime-*-fc-L2-seconds-over-D",
    ),
    Claim(
        "parity",
        "Score matching ends at the likelihood that maximum likelihood ends at.",
        "MNIST, fc: ML 1092.4, SSM 1092.8, DSM 1099.2, FDSSM 1104.1 nats; one Gaussian in closed form has 1093.8.",
        "Both are trained on the same network and data, by the recipes paper and tuned. For: the test NLL of score "
        f"matching is at most {trainings.PARITY:.0%} above that of maximum likelihood. A comparison is open while "
        f"neither has come within {trainings.TRAINED:.0%} of one Gaussian in closed form: before that, the network has "
        "learned less than a mean and a covariance.",
        "harness reproduce table2-mnist-fc tuned-mnist-fc tuned-digits-fc --profile paper --seeds 1",
        trainings.parity,
        AS_GOOD,
        "table2-mnist-fc-*-likelihood",
    ),
    Claim(
        "map",
        "Matching after preprocessing (MaP) lowers the NLL, and the gradient norm by orders of magnitude.",
        "MNIST, fc, SSM: 1720.5 nats without MaP, 1092.8 with it; gradient norms of 60 to 110 against below 1.",
        "Trainings of one experiment are compared, all else equal. For: the NLL is at least "
        f"{trainings.GAP:.0%} higher without MaP, and the median gradient norm, where it was kept, at least "
        f"{trainings.NORMS:g} times larger. Partly: the NLL is higher without MaP. Against: it is not.",
        "harness reproduce table4-mnist-fc --profile paper --seeds 1 --methods ebflow-ssm --epochs 10",
        trainings.matching,
        USE,
        "table4-mnist-fc-*-ablation",
    ),
    Claim(
        "ema",
        "Averaged weights (EMA) lower the NLL.",
        "MNIST, fc, SSM without MaP: 1757.5 nats without EMA, 1720.5 with it.",
        "Trainings of one experiment are compared, all else equal. For: the NLL is lower with EMA.",
        "harness reproduce table4-mnist-fc --profile paper --seeds 1 --methods ebflow-ssm --epochs 10",
        trainings.averaging,
        USE,
        "table4-mnist-fc-*-ablation",
    ),
    Claim(
        "matrices",
        "Linear layers of any form fit better than triangular and LU ones.",
        "Figure A4, on a 10-D multimodal density; its curves could not be obtained.",
        "Network and recipe are the same. For: full matrices end at a lower NLL than the restricted ones.",
        "harness reproduce figure-a4-matrices --profile paper --seeds 1",
        trainings.matrices,
        USE,
        "*-multimodal10-multimodal*-divergence",
    ),
    Claim(
        "log-z",
        "The normalizing constant Z can be computed once, after training.",
        "The paper states an identity, to be estimated by importance sampling; no number is published.",
        "For: models trained without log Z were scored exactly; and, for each way to estimate log Z, the mean absolute "
        f"error is below {sampling.ERROR:g} nat at every measured D. Partly: it is so at some D.",
        "harness reproduce log-z --profile paper",
        sampling.normalizer,
        AFTER,
    ),
    Claim(
        "imputation",
        "The score fills in missing pixels by Langevin dynamics.",
        "The paper shows filled-in training images; no number is published.",
        f"For: the mean over the chain is at least {sampling.GAIN:g} dB better than the mean image. Partly: it is "
        "better.",
        "harness reproduce imputation-mnist --profile paper --seeds 1",
        sampling.imputation,
        AFTER,
        "imputation-mnist-*-imputation",
    ),
    Claim(
        "glow",
        "Glow reaches 728 nats on MNIST by score matching.",
        "728 nats in pixel space, for SSM with 32 blocks.",
        f"For: score matching ends at most {trainings.PARITY:.0%} above 728 nats. Partly: maximum likelihood alone "
        "does.",
        "harness train --method ebflow-ml --architecture glow --dataset mnist --recipe tuned --layers 8 --draws 2",
        trainings.glow,
        AS_GOOD,
    ),
    Claim(
        "points",
        "On 2-D sets score matching is on par with maximum likelihood.",
        "The paper claims it for the sine, the swirl and the checkerboard; its numbers could not be obtained.",
        "Network, data and recipe are the same. For: the KL divergence from the exact density is at most "
        f"{trainings.POINTS:g} nats above that of maximum likelihood.",
        "harness reproduce tuned-2d --profile paper --seeds 1",
        trainings.points,
        AS_GOOD,
        "tuned-2d-*-sine-*-density",
    ),
)
