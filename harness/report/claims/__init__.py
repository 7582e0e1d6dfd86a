"""The paper's claims in its order, each with the rule by which rows of results decide it.

`results/README.md` is the reading by hand; what is here is computed, from whatever rows there are.
"""

from __future__ import annotations

from harness.report.claims import sampling, speed, trainings
from harness.report.claims.evidence import VERDICT_RULE, Claim, Evidence, Outcome, Verdict, judge

__all__ = ["CLAIMS", "VERDICT_RULE", "Claim", "Evidence", "Outcome", "Verdict", "judge"]

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "speed",
        "An iteration of score matching takes less time than one of maximum likelihood.",
        "On a GPU, fc: 8 times (MNIST) and 11 times (CIFAR-10) by DSM; cnn: 87 and 920 times, against determinants "
        "taken on the CPU.",
        "For: faster at every measured D, intervals apart, and by at least the published factor wherever there is one "
        "for that D. Partly: faster at the largest D. Against: not faster there. Compared inside one run alone, where "
        "methods take turns. Maximum likelihood with restricted matrices (LU and the like) counts too: for if it takes "
        f"at least {speed.REACH:g} times the time of DSM at the largest D, partly if more than once, else against.",
        "harness runtime --dims 64,256,784,1600,3072",
        speed.speedup,
    ),
    Claim(
        "scaling",
        "Its time grows as D²L, that of maximum likelihood as D³L.",
        "Stated as complexities; the published curves have slopes of 1.45 to 2.3 for maximum likelihood.",
        f"Slopes of log time over log D, of at least {speed.POINTS} sizes from D = {speed.LARGE} on. "
        f"For: at most {2 + speed.SLOPE:g} by score matching and at least {3 - 2 * speed.SLOPE:g} by maximum "
        "likelihood, whose products of the batch are D². "
        f"Partly: at least {speed.SLOPE:g} apart. In L: within {speed.SLOPE:g} of 1.",
        "harness runtime --dims 784,1600,3072 && harness runtime --dims 784 --layers 2,4,8,16",
        speed.scaling,
    ),
    Claim(
        "parity",
        "Score matching ends at the likelihood that maximum likelihood ends at.",
        "MNIST, fc: ML 1092.4, SSM 1092.8, DSM 1099.2, FDSSM 1104.1 nats; one Gaussian in closed form has 1093.8.",
        "On the same network and data, by the recipes paper and tuned. For: the test NLL of score matching is at most "
        f"{trainings.PARITY:.0%} above that of maximum likelihood. It is open while neither has come within "
        f"{trainings.TRAINED:.0%} of one Gaussian in closed form: before that, the network has learned less than a "
        "mean and a covariance.",
        "harness reproduce table2-mnist-fc tuned-mnist-fc tuned-digits-fc --profile paper --seeds 1",
        trainings.parity,
    ),
    Claim(
        "map",
        "Matching after preprocessing (MaP) lowers the NLL, and the gradient norm by orders of magnitude.",
        "MNIST, fc, SSM: 1720.5 nats without MaP, 1092.8 with it; gradient norms of 60 to 110 against below 1.",
        f"In one experiment, all else equal. For: at least {trainings.GAP:.0%} more nats without MaP and a median "
        f"gradient norm at least {trainings.NORMS:g} times larger, where it is there. Partly: more nats. "
        "Against: no more.",
        "harness reproduce table4-mnist-fc --profile paper --seeds 1 --methods ebflow-ssm --epochs 10",
        trainings.matching,
    ),
    Claim(
        "ema",
        "Averaged weights (EMA) lower the NLL.",
        "MNIST, fc, SSM without MaP: 1757.5 nats without EMA, 1720.5 with it.",
        "In one experiment, all else equal. For: fewer nats with EMA.",
        "harness reproduce table4-mnist-fc --profile paper --seeds 1 --methods ebflow-ssm --epochs 10",
        trainings.averaging,
    ),
    Claim(
        "matrices",
        "Linear layers of any form fit better than triangular and LU ones.",
        "Figure A4, on a 10-D multimodal density; its curves could not be obtained.",
        "The same network and recipe. For: full matrices end with fewer nats than the restricted ones.",
        "harness reproduce figure-a4-matrices --profile paper --seeds 1",
        trainings.matrices,
    ),
    Claim(
        "log-z",
        "The normalizing constant Z can be had after training, once.",
        "Stated as an identity, estimated by importance sampling; no number is published.",
        "For: models trained without it were scored exactly; and, for each way to estimate it, the mean absolute "
        f"error is below {sampling.ERROR:g} nat at every measured D. Partly: at some D.",
        "harness reproduce log-z --profile paper",
        sampling.normalizer,
    ),
    Claim(
        "imputation",
        "The score fills in missing pixels by Langevin dynamics.",
        "Pictures of filled-in training images; no number is published.",
        f"For: the mean over the chain is at least {sampling.GAIN:g} dB better than the mean image. Partly: better.",
        "harness reproduce imputation-mnist --profile paper --seeds 1",
        sampling.imputation,
    ),
    Claim(
        "glow",
        "Glow reaches 728 nats on MNIST by score matching.",
        "728 nats in pixel space, for SSM with 32 blocks.",
        f"For: at most {trainings.PARITY:.0%} above it by score matching. Partly: by maximum likelihood alone.",
        "harness train --method ebflow-ml --architecture glow --dataset mnist --recipe tuned --layers 8 --draws 2",
        trainings.glow,
    ),
    Claim(
        "points",
        "On 2-D sets score matching is on par with maximum likelihood.",
        "Stated for the sine, the swirl and the checkerboard; the numbers could not be obtained.",
        "The same network, data and recipe. For: the KL divergence from the exact density is at most "
        f"{trainings.POINTS:g} nats above that of maximum likelihood.",
        "harness reproduce tuned-2d --profile paper --seeds 1",
        trainings.points,
    ),
)
